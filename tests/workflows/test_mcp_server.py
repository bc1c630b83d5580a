"""`stp mcp`: the package's own client talks to the real process, which stays in its folder."""

import json
import os
import shutil
import sys
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from anyio.from_thread import start_blocking_portal
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from tests.cohorts import STUDY, write_study
from tests.features import tiny_encoder
from tests.slides import make_slide

from stp.cli.main import main
from stp.io import from_anndata, write_store

STP = Path(sys.executable).with_name("stp")
FAST = STUDY.replace("epochs = 6", "epochs = 1").replace("n_folds = 3", "n_folds = 2")
OUTSIDE = "leads outside"
URL = "is a URL"


class Agent:
    """Calls of tools over the standard input and output of the server."""

    def __init__(self, portal, client, folder):
        self._portal = portal
        self._client = client
        self.folder = folder

    def answer(self, tool, **arguments):
        return self._portal.call(self._client.call_tool, tool, arguments)

    def call(self, tool, **arguments):
        """Return the result of a tool, and check that its text is the same as JSON."""
        answer = self.answer(tool, **arguments)
        assert not answer.is_error, answer.content[0].text
        assert json.loads(answer.content[0].text) == answer.structured_content
        return answer.structured_content

    def refuse(self, tool, **arguments):
        """Return the error of a tool, which is one line without a traceback."""
        answer = self.answer(tool, **arguments)
        assert answer.is_error, answer.content[0].text
        (content,) = answer.content
        assert "\n" not in content.text and "Traceback" not in content.text
        return content.text

    def tools(self):
        return {tool.name: tool for tool in self._portal.call(self._client.list_tools).tools}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Make a folder with stores, a model and a trained study, and what lies outside of it."""
    top = tmp_path_factory.mktemp("agent")
    inside = top / "inside"
    outside = top / "outside"
    for folder in (inside, outside):
        (folder / "study").mkdir(parents=True)
        write_study(folder / "study", FAST, n_patients=12, n_tiles=4)
        tiny_encoder().save_pretrained(folder / "model")
    table, image = make_slide()
    write_store(
        from_anndata(table[:20].copy(), image, um_per_px=1.0),
        inside / "slide.zarr",
        patch_um_per_px=4.0,
    )
    shutil.copytree(inside / "slide.zarr", outside / "slide.zarr")
    assert main(["slides", "cross-validate", str(inside / "study" / "cohort.toml")]) == 0
    shutil.copytree(inside / "study" / "out", outside / "study" / "out")
    return inside, outside


@pytest.fixture(scope="module")
def agent(workplace, tmp_path_factory):
    """Start the server, one for all tests."""
    folder, _ = workplace
    environment = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    environment |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    server = StdioServerParameters(
        command=str(STP), args=["mcp", "--root", str(folder)], env=environment
    )
    log = tmp_path_factory.mktemp("log") / "stderr"
    with (
        log.open("w") as file,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(Client(stdio_client(server, file))) as client,
    ):
        yield Agent(portal, client, folder)
    assert "Traceback" not in log.read_text()


@pytest.fixture
def study(agent, tmp_path_factory):
    """Return the folder of a copy of the study that a test may change."""
    folder = tmp_path_factory.mktemp("copy", numbered=True)
    target = agent.folder / folder.name
    shutil.copytree(agent.folder / "study", target)
    yield target
    shutil.rmtree(target)


@pytest.fixture(autouse=True)
def nothing_is_written_outside(workplace):
    """Compare all files outside before and after a test."""

    def look():
        return {path: path.stat().st_mtime_ns for path in workplace[1].rglob("*")}

    before = look()
    yield
    assert look() == before


def edit(file, before, after):
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def set_paths(folder, change):
    """Write paths of features into the slide table; `change` makes the one of the last slide."""
    edit(folder / "cohort.toml", 'root = "features"\n', "")
    table = pd.read_csv(folder / "slides.csv", dtype=str)
    table["path"] = [f"features/{slide}.h5" for slide in table["slide"]]
    table.loc[table.index[-1], "path"] = change(table["path"].iloc[-1])
    table.to_csv(folder / "slides.csv", index=False)


def test_tools_have_descriptions_and_say_what_only_reads(agent):
    tools = agent.tools()
    assert set(tools) == {
        "list",
        "describe_store",
        "describe_cohort",
        "check",
        "embed",
        "predict",
        "score",
        "draw",
        "explain",
    }
    assert all(len(tool.description) > 40 for tool in tools.values())
    readers = {name for name, tool in tools.items() if tool.annotations.read_only_hint}
    assert readers == {"list", "describe_store", "describe_cohort", "check"}
    assert tools["predict"].input_schema["required"] == ["file"]


def test_list_names_stores_cohorts_and_models(agent, workplace):
    link = agent.folder / "linked.zarr"
    link.symlink_to(workplace[1] / "slide.zarr")
    try:
        result = agent.call("list")
    finally:
        link.unlink()
    table = anndata.read_zarr(agent.folder / "slide.zarr" / "tables" / "table")
    size = {"n_spots": table.n_obs, "n_genes": table.n_vars}
    assert result["stores"] == [{"path": "slide.zarr", "tables": {"table": size}}]
    assert result["cohorts"] == ["study/cohort.toml"]
    assert {"path": "model", "class": "ImageEncoder"} in result["models"]
    assert {"path": "study/out/cross_validation/fold_1", "class": "SlideModel"} in result["models"]


def test_embed_adds_results_that_describe_shows(agent):
    before = agent.call("describe_store", store="slide.zarr")
    assert before["scale"]["um_per_px"] == 1.0 and before["scale"]["patch_um_per_px"] == 4.0
    assert list(before["tables"]["table"]["obsm"]) == ["spatial"]
    result = agent.call("embed", stores=["slide.zarr"], model="model", batch_size=256)
    assert result["n_failed"] == 0
    assert result["stores"][0]["written"] == ["X_stp_images"]
    after = agent.call("describe_store", store=str(agent.folder / "slide.zarr"))
    entry = {"width": tiny_encoder().width, "model": "model"}
    assert after["tables"]["table"]["obsm"]["X_stp_images"] == entry
    again = agent.call("embed", stores=["slide.zarr"], model="model")
    assert [line["status"] for line in again["stores"]] == ["skipped"]


def test_check_is_that_of_the_command_line(agent, study, capsys):
    file = study / "cohort.toml"
    (study / "features" / "P003_1.h5").unlink()
    for text in (file.read_text(), file.read_text() + "\n[scors]\n"):
        file.write_text(text)
        result = agent.call("check", file=f"{study.name}/cohort.toml")
        capsys.readouterr()
        assert main(["slides", "check", str(file), "--json"]) == 1
        expected = json.loads(capsys.readouterr().out)
        assert {name: result[name] for name in expected} == expected
        assert not result["is_ready"]


def test_predict_score_and_draw_do_what_the_commands_do(agent, study):
    file = f"{study.name}/cohort.toml"
    result = agent.call("predict", file=file)
    assert len(pd.read_csv(agent.folder / result["table"])) == 12
    assert any(line.startswith("predict cross-validation: 12 pat") for line in result["messages"])
    again = agent.call("predict", file=file)
    assert any("is finished and skipped" in line for line in again["messages"])
    assert "cross-validation" in agent.call("describe_cohort", file=file)["predictions"]
    scores = agent.call("score", file=file)
    expected = json.loads((study / "out" / "scores" / "scores.json").read_text())
    assert {name: scores[name] for name in expected} == expected
    assert (agent.folder / scores["report"]).is_file()
    maps = agent.call("draw", file=file, slides=["P000_0"], um_per_px=0.5)
    assert not maps["failures"]
    folder = f"{study.name}/out/maps/cross-validation"
    assert {f"{folder}/P000_0.png", f"{folder}/P000_0.geojson"} <= set(maps["files"])


def test_errors_are_those_of_the_command_line(agent, study, capsys):
    file = study / "cohort.toml"
    message = agent.refuse("score", file=f"{study.name}/cohort.toml")
    with pytest.raises(SystemExit):
        main(["slides", "score", str(file)])
    assert capsys.readouterr().err == f"stp slides: error: {message}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fil": "a"}, "check has no argument 'fil' (did you mean 'file'?)"),
        ({}, "wrong arguments: file: Field required"),
        ({"file": ["a"]}, "wrong arguments: file: Input should be a valid string"),
        ({"file": "none.toml"}, "there is no file"),
        ({"file": "study"}, "is a folder"),
    ],
)
def test_wrong_arguments_are_one_line(agent, arguments, message):
    assert message in agent.refuse("check", **arguments)


def test_an_unknown_tool_is_one_line(agent):
    assert agent.refuse("run_code", code="1") == "Unknown tool: run_code"


def link_to_file(outside, folder):
    (folder / "linked.toml").symlink_to(outside / "study" / "cohort.toml")
    return f"{folder.name}/linked.toml"


def link_to_folder(outside, folder):
    (folder / "linked").symlink_to(outside / "study")
    return f"{folder.name}/linked/cohort.toml"


def link_in_a_circle(outside, folder):
    (folder / "circle").symlink_to(folder / "circle")
    return f"{folder.name}/circle/cohort.toml"


PATHS = {
    "parent": (lambda outside, folder: "../outside/study/cohort.toml", OUTSIDE),
    "absolute": (lambda outside, folder: str(outside / "study" / "cohort.toml"), OUTSIDE),
    "home": (lambda outside, folder: "~/cohort.toml", OUTSIDE),
    "folder with the same start": (
        lambda outside, folder: f"{folder.parent}_other/cohort.toml",
        OUTSIDE,
    ),
    "link to a file": (link_to_file, OUTSIDE),
    "link to a folder": (link_to_folder, OUTSIDE),
    "link in a circle": (link_in_a_circle, "is no path"),
    "null": (lambda outside, folder: "study/cohort.toml\0", "is no path"),
    "s3": (lambda outside, folder: "s3://bucket/cohort.toml", URL),
    "web": (lambda outside, folder: "https://user:secret@host/cohort.toml", URL),
    "file": (lambda outside, folder: f"file://{outside}/study/cohort.toml", URL),
}


@pytest.mark.parametrize("kind", PATHS)
def test_a_path_outside_is_refused(agent, workplace, study, kind):
    make_path, message = PATHS[kind]
    path = make_path(workplace[1], study)
    for tool in ("check", "predict", "score", "draw", "explain", "describe_cohort"):
        error = agent.refuse(tool, file=path)
        assert message in error and "secret" not in error
    assert message in agent.refuse("describe_store", store=path)
    assert message in agent.refuse("embed", stores=["slide.zarr", path], model="model")
    assert message in agent.refuse("embed", stores=["slide.zarr"], model=path)
    file = f"{study.name}/cohort.toml"
    for argument in ("clinical", "slides", "features", "models"):
        assert message in agent.refuse("predict", file=file, **{argument: path})
        assert message in agent.refuse("check", file=file, **{argument: path})
    for tool in ("draw", "explain"):
        assert message in agent.refuse(tool, file=file, models=path)


WSI = '[slides]\nwsi = ["{}"]\nmodel = "Midnight-12k"\ntile_um = 112\n'


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('slides = "slides.csv"', 'slides = "../../outside/study/slides.csv"', OUTSIDE),
        ('clinical = "clinical.csv"', 'clinical = "OUTSIDE/study/clinical.csv"', OUTSIDE),
        ('root = "features"', 'root = "../../outside/study/features"', OUTSIDE),
        ('root = "features"', 'root = "s3://bucket/features"', URL),
        ('root = "features"', 'root = "linked"', OUTSIDE),
        ('root = "features"', 'root = "features"\ntable_key = "../../x"', "is no name"),
        ('root = "features"', 'root = "features"\nuse_rep = "../x"', "is no name"),
        ('output_dir = "out"', 'output_dir = "../../outside/out"', OUTSIDE),
        ('output_dir = "out"', 'output_dir = "~/out"', OUTSIDE),
        ('output_dir = "out"', 'output_dir = "linked"', OUTSIDE),
        ("[cohort]", WSI.format("../../outside/*.svs") + "[cohort]", OUTSIDE),
        ("[cohort]", WSI.format("*/../../../outside/*.svs") + "[cohort]", OUTSIDE),
        ("[cohort]", WSI.format("*/../*.svs") + "[cohort]", "after a pattern"),
        ("[cohort]", WSI.format("linked/*.svs") + "[cohort]", OUTSIDE),
        ("[cohort]", WSI.format("s3://bucket/*.svs") + "[cohort]", URL),
        ("[cohort]", WSI.format("*.svs") + 'tissue = "OUTSIDE"\n[cohort]', OUTSIDE),
        (
            "[cohort]",
            WSI.format("*.svs").replace("Midnight-12k", "../../outside/model") + "[cohort]",
            OUTSIDE,
        ),
        ("[cohort]", '[genes]\nreference = "../../outside/slide.zarr"\n[cohort]', OUTSIDE),
        ("[cohort]", '[genes]\nreference = ["OUTSIDE/*.zarr"]\n[cohort]', OUTSIDE),
        ("[cohort]", '[genes]\nreference = ["linked/*.zarr"]\n[cohort]', OUTSIDE),
        ("[cohort]", '[genes]\nreference = ["*/../*.zarr"]\n[cohort]', "after a pattern"),
        ("[cohort]", '[genes]\nreference = "s3://bucket/a.zarr"\n[cohort]', URL),
        ("[cohort]", '[genes]\ngene_sets = "linked/clinical.csv"\n[cohort]', OUTSIDE),
        ("[cohort]", '[genes]\nreference_rep = "../x"\n[cohort]', "is no name"),
    ],
)
def test_a_path_outside_in_the_file_is_refused(agent, workplace, study, before, after, message):
    (study / "linked").symlink_to(workplace[1] / "study")
    edit(study / "cohort.toml", before, after.replace("OUTSIDE", str(workplace[1])))
    for tool in ("check", "predict", "score", "draw", "explain", "describe_cohort"):
        assert message in agent.refuse(tool, file=f"{study.name}/cohort.toml")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("../../outside/study/{}", OUTSIDE),
        ("OUTSIDE/study/{}", OUTSIDE),
        ("~/{}", OUTSIDE),
        ("linked/{}", OUTSIDE),
        ("file.h5", OUTSIDE),
        ("s3://bucket/{}", URL),
    ],
)
def test_a_path_outside_in_the_slide_table_is_refused(agent, workplace, study, path, message):
    outside = workplace[1]
    (study / "linked").symlink_to(outside / "study")
    (study / "file.h5").symlink_to(outside / "study" / "features" / "P000_0.h5")
    set_paths(study, path.replace("OUTSIDE", str(outside)).format)
    file = f"{study.name}/cohort.toml"
    for tool in ("check", "predict"):
        assert message in agent.refuse(tool, file=file)
        assert message in agent.refuse(tool, file=file, clinical=f"{study.name}/clinical.csv")
        assert message in agent.refuse(tool, file=file, clinical=f"{study.name}/slides.csv")


def test_paths_inside_in_the_slide_table_are_read(agent, study):
    set_paths(study, lambda path: f"../{study.name}/{path}")
    (study / "features" / "linked.h5").symlink_to(study / "features" / "P000_0.h5")
    assert agent.call("check", file=f"{study.name}/cohort.toml")["is_ready"]


@pytest.mark.parametrize("kind", ["link", "external link", "virtual", "external values", "store"])
def test_features_outside_are_refused(agent, workplace, study, kind):
    file = study / "features" / "P000_0.h5"
    other = workplace[1] / "study" / "features" / "P000_0.h5"
    with h5py.File(file) as opened:
        shape = opened["feats"].shape
    file.unlink()
    if kind == "link":
        file.symlink_to(other)
    elif kind == "store":
        shutil.copytree(agent.folder / "slide.zarr", file.with_suffix(".zarr"))
        shutil.rmtree(file.with_suffix(".zarr") / "images")
        (file.with_suffix(".zarr") / "images").symlink_to(workplace[1] / "slide.zarr" / "images")
    else:
        with h5py.File(file, "w") as opened:
            if kind == "external link":
                opened.create_group("a")["feats"] = h5py.ExternalLink(other, "feats")
            elif kind == "virtual":
                layout = h5py.VirtualLayout(shape, np.float16)
                layout[:] = h5py.VirtualSource(other, "feats", shape)
                opened.create_virtual_dataset("feats", layout)
            else:
                opened.create_dataset("feats", shape, np.float16, external=[(str(other), 0, 960)])
    message = OUTSIDE if kind in ("link", "store") else "has parts in other files"
    for tool in ("check", "predict", "draw"):
        assert message in agent.refuse(tool, file=f"{study.name}/cohort.toml")


def test_models_outside_are_refused(agent, workplace, study):
    file = f"{study.name}/cohort.toml"
    listing = study / "out" / "cross_validation" / "models.json"
    fold = workplace[1] / "study" / "out" / "cross_validation" / "fold_0"
    content = listing.read_text()
    for name in (str(fold), "../../../../outside/study/out/cross_validation/fold_0"):
        listing.write_text(json.dumps({**json.loads(content), "models": [name]}))
        assert OUTSIDE in agent.refuse("predict", file=file)
        assert OUTSIDE in agent.refuse("check", file=file, models=f"{study.name}/out")
    listing.write_text(content)
    shutil.rmtree(listing.parent / "fold_0")
    (listing.parent / "fold_0").symlink_to(fold)
    assert OUTSIDE in agent.refuse("predict", file=file)


def test_predictions_that_name_files_outside_are_refused(agent, workplace, study):
    file = f"{study.name}/cohort.toml"
    agent.call("predict", file=file)
    predictions = study / "out" / "predictions" / "cross-validation.h5ad"
    record = predictions.with_suffix(".json")
    content = record.read_text()
    models = workplace[1] / "study" / "out" / "cross_validation"
    record.write_text(json.dumps({**json.loads(content), "models": str(models)}))
    for tool in ("score", "draw", "explain"):
        assert OUTSIDE in agent.refuse(tool, file=file)
    record.write_text(json.dumps({**json.loads(content), "models": str(agent.folder)}))
    assert OUTSIDE in agent.refuse("score", file=file)  # predictions next to the folder are read
    record.write_text(content)
    cohort = anndata.read_h5ad(predictions)
    cohort.obs["path"] = str(workplace[1] / "study" / "features" / "P000_0.h5")
    cohort.write_h5ad(predictions)
    for tool in ("draw", "explain"):
        assert OUTSIDE in agent.refuse(tool, file=file)
    cohort.uns["stp_cohort"]["features"]["table_key"] = "../../../outside"
    cohort.write_h5ad(predictions)
    for tool in ("draw", "explain"):
        assert "is no name" in agent.refuse(tool, file=file)


@pytest.mark.parametrize("name", ["../x", "/x", "..", ".", "", "a/../../../x"])
def test_names_that_are_paths_are_refused(agent, study, name):
    file = f"{study.name}/cohort.toml"
    for tool in ("predict", "draw", "explain"):
        assert "is no name of a file" in agent.refuse(tool, file=file, name=name)
    error = agent.refuse("embed", stores=["slide.zarr"], model="model", table_key=name)
    assert "table_key" in error and "is no name" in error


@pytest.mark.parametrize("model", ["UNI", "owner/name"])
def test_models_of_the_hub_are_refused(agent, model):
    assert "models of the hub are not loaded" in agent.refuse(
        "embed", stores=["slide.zarr"], model=model
    )


def test_a_model_with_weights_of_the_hub_is_refused(agent):
    folder = agent.folder / "hub"
    shutil.copytree(agent.folder / "model", folder)
    config = json.loads((folder / "config.json").read_text())
    config["config"]["pretrained"] = True
    (folder / "config.json").write_text(json.dumps(config))
    assert "weights of the hub" in agent.refuse("embed", stores=["slide.zarr"], model="hub")
    shutil.rmtree(folder)


def test_stores_with_links_outside_are_refused(agent, workplace):
    store = agent.folder / "linking.zarr"
    shutil.copytree(agent.folder / "slide.zarr", store)
    shutil.rmtree(store / "images")
    (store / "images").symlink_to(workplace[1] / "slide.zarr" / "images")
    try:
        assert OUTSIDE in agent.refuse("embed", stores=["linking.zarr"], model="model")
        assert OUTSIDE in agent.refuse("describe_store", store="linking.zarr")
        listed = {item["path"]: item for item in agent.call("list")["stores"]}
        assert OUTSIDE in listed["linking.zarr"]["error"]
    finally:
        shutil.rmtree(store)


def test_the_journal_of_a_stopped_embedding_names_no_path(agent):
    scratch = agent.folder / ".slide.zarr.results"
    scratch.mkdir()
    journal = {"table": "../../../outside", "new": [["obsm", "X"]]}
    (scratch / "journal.json").write_text(json.dumps(journal))
    try:
        assert "is no name" in agent.refuse("embed", stores=["slide.zarr"], model="model")
    finally:
        shutil.rmtree(scratch)


def test_the_folder_itself_is_no_store(agent):
    assert "is the folder of this server" in agent.refuse("embed", stores=["."], model="model")
