"""Writers of small slides in the formats that OpenSlide reads."""

import io
import struct

import numpy as np
import PIL.Image
import tifffile

TILE = 64


def picture(height, width, seed=0):
    """Return a smooth RGB picture, so that JPEG changes it little."""
    y, x = np.mgrid[:height, :width]
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    waves = [np.sin(x / 19 + p) + np.cos(y / 23 - p) for p in phase]
    return (128 + 50 * np.stack(waves, axis=-1)).astype(np.uint8)


def tiles_of(rgb, step):
    """Yield the tiles of a picture, row by row, each `step` pixels after the one before."""
    for top in range(0, rgb.shape[0] - TILE + 1, step):
        for left in range(0, rgb.shape[1] - TILE + 1, step):
            yield rgb[top : top + TILE, left : left + TILE]


def overlapping_tiff(rgb, overlap):
    """Return a picture whose tiles repeat `overlap` pixels of their neighbors, as they are stored.

    The stored picture is larger than `rgb`, and is cut along each seam.
    """
    step = TILE - overlap
    n_rows, n_columns = ((side - overlap) // step for side in rgb.shape[:2])
    stored = np.array(list(tiles_of(rgb, step))).reshape(n_rows, n_columns, TILE, TILE, 3)
    return stored.swapaxes(1, 2).reshape(n_rows * TILE, n_columns * TILE, 3)


def write_trestle(path, rgb, overlap, um_per_px):
    """Write a Trestle slide of one level; its resolution tags are µm per pixel."""
    tifffile.imwrite(
        path,
        overlapping_tiff(rgb, overlap),
        photometric="rgb",
        tile=(TILE, TILE),
        software="MedScan",
        description=f"Objective Power=20;OverlapsXY= {overlap} {overlap};",
        metadata=None,
        resolution=(um_per_px, um_per_px),
        resolutionunit="INCH",
    )


def write_bif(path, rgb, overlap, um_per_px):
    """Write a Ventana slide of one level, after a label that is its first page."""
    step = TILE - overlap
    n_rows, n_columns = ((side - overlap) // step for side in rgb.shape[:2])
    joints = []
    number = {}  # of a tile: rows from the bottom, every other one from right to left
    for row in range(n_rows):
        for column in range(n_columns):
            from_left = column if row % 2 == 0 else n_columns - 1 - column
            number[row, column] = row * n_columns + from_left + 1
    sizes = f'OverlapX="{overlap}" OverlapY="{overlap}" Confidence="100" FlagJoined="1"'
    for row in range(n_rows):
        for column in range(n_columns):
            for direction, other in (("RIGHT", (row, column + 1)), ("UP", (row + 1, column))):
                if other in number:
                    ends = f'Tile1="{number[row, column]}" Tile2="{number[other]}"'
                    joints.append(f'<TileJointInfo Direction="{direction}" {ends} {sizes}/>')
    area = f'Width="{TILE}" Height="{TILE}" NumRows="{n_rows}" NumCols="{n_columns}"'
    stitching = (
        f'<EncodeInfo Ver="2"><SlideStitchInfo><ImageInfo AOIScanned="1" AOIIndex="0" {area} '
        f'Pos-X="0" Pos-Y="0">{"".join(joints)}</ImageInfo></SlideStitchInfo>'
        '<AoiOrigin><AOI0 OriginX="0" OriginY="0"/></AoiOrigin></EncodeInfo>'
    )
    scan = f'<iScan Magnification="20" ScanRes="{um_per_px}" Z-layers="1"/>'
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for pixels, xmp, description in (
            (picture(96, 48, seed=9), scan, "Label Image"),
            (overlapping_tiff(rgb, overlap), stitching, "level=0 mag=20 quality=95"),
        ):
            tiff.write(
                pixels,
                photometric="rgb",
                tile=(TILE, TILE) if pixels.shape[0] > 96 else None,
                description=description,
                software="ScanOutputManager 1.1.0.15854",
                metadata=None,
                extratags=[(700, 1, len(xmp), xmp.encode(), True)],
            )


def png(rgb):
    """Return the bytes of a PNG."""
    stream = io.BytesIO()
    PIL.Image.fromarray(rgb).save(stream, format="PNG")
    return stream.getvalue()


def write_mrxs(path, rgb, um_per_px, missing=()):
    """Write a MIRAX slide of two levels, without the tiles of the finest that are `missing`."""
    folder = path.with_suffix("")
    folder.mkdir()
    PIL.Image.fromarray(rgb[::4, ::4]).save(path, format="JPEG")
    n_rows, n_columns = (side // TILE for side in rgb.shape[:2])
    data = b""
    pages = []
    for level, image in enumerate((rgb, rgb[::2, ::2])):
        concat = 2**level
        records = []
        for index, tile in enumerate(tiles_of(image, TILE)):
            if level == 0 and index in missing:
                continue
            row, column = divmod(index, n_columns // concat)
            number = row * concat * n_columns + column * concat
            content = png(tile)
            records.append((number, len(data), len(content), 0))
            data += content
        pages.append(records)
    slide_id = "0123456789ABCDEF"
    sections = []
    for level, concat in enumerate((0, 1)):
        scale = um_per_px * 2**level
        sections.append(
            f"[LAYER_0_LEVEL_{level}_SECTION]\nOVERLAP_X=0\nOVERLAP_Y=0\n"
            f"MICROMETER_PER_PIXEL_X={scale}\nMICROMETER_PER_PIXEL_Y={scale}\nIMAGE_FORMAT=PNG\n"
            f"IMAGE_FILL_COLOR_BGR=16777215\nDIGITIZER_WIDTH={TILE}\nDIGITIZER_HEIGHT={TILE}\n"
            f"IMAGE_CONCAT_FACTOR={concat}\n"
        )
    (folder / "Slidedat.ini").write_text(
        f"[GENERAL]\nSLIDE_VERSION=01.02\nSLIDE_ID={slide_id}\nIMAGENUMBER_X={n_columns}\n"
        f"IMAGENUMBER_Y={n_rows}\nOBJECTIVE_MAGNIFICATION=20\n"
        "[HIERARCHICAL]\nHIER_COUNT=1\nNONHIER_COUNT=0\nINDEXFILE=Index.dat\n"
        "HIER_0_NAME=Slide zoom level\nHIER_0_COUNT=2\n"
        "HIER_0_VAL_0_SECTION=LAYER_0_LEVEL_0_SECTION\n"
        "HIER_0_VAL_1_SECTION=LAYER_0_LEVEL_1_SECTION\n"
        "[DATAFILE]\nFILE_COUNT=1\nFILE_0=Data0000.dat\n" + "".join(sections)
    )
    (folder / "Data0000.dat").write_bytes(data)
    (folder / "Index.dat").write_bytes(_mirax_index(slide_id, pages))


def _mirax_index(slide_id, pages):
    """Return the index: a pointer to each level, which points to a page of tiles."""
    head = f"01.02{slide_id}".encode()
    root = len(head) + 8
    position = root + 4 * len(pages)
    pointers = b""
    body = b""
    for records in pages:
        start = position + len(body)
        pointers += struct.pack("<i", start)
        body += struct.pack("<iiii", 0, start + 8, len(records), 0)
        for record in records:
            body += struct.pack("<iiii", *record)
    return head + struct.pack("<ii", root, 0) + pointers + body


def write_vms(path, rgb, um_per_px):
    """Write a Hamamatsu VMS slide of one JPEG."""
    for name, pixels in (("image", rgb), ("map", rgb[::4, ::4]), ("macro", rgb[::8, ::8])):
        image = PIL.Image.fromarray(np.ascontiguousarray(pixels))
        image.save(path.parent / f"{name}.jpg", quality=95, subsampling=0, restart_marker_blocks=4)
    height, width = rgb.shape[:2]
    path.write_text(
        "[Virtual Microscope Specimen]\nNoLayers=1\nNoJpegColumns=1\nNoJpegRows=1\n"
        "ImageFile=image.jpg\nMapFile=map.jpg\nMacroImage=macro.jpg\nSourceLens=20\n"
        f"PhysicalWidth={width * um_per_px * 1000:.0f}\n"
        f"PhysicalHeight={height * um_per_px * 1000:.0f}\n"
    )


def write_dicom(folder, rgb, um_per_px):
    """Write a tiled slide of two levels as DICOM files, and return their paths, finest first."""
    import highdicom
    from pydicom.uid import ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage

    study, series = highdicom.UID(), highdicom.UID()
    paths = []
    for level, image in enumerate((rgb, rgb[::2, ::2])):
        dataset = highdicom.SOPClass(
            study_instance_uid=study,
            series_instance_uid=series,
            series_number=1,
            sop_instance_uid=highdicom.UID(),
            sop_class_uid=VLWholeSlideMicroscopyImageStorage,
            instance_number=level + 1,
            modality="SM",
            manufacturer="test",
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
        dataset.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED" if level else "NONE"]
        _describe_tiles(dataset, image, um_per_px * 2**level / 1000)
        paths.append(folder / f"level{level}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def _describe_tiles(dataset, rgb, mm_per_px):
    """Add the pixels of a picture to a DICOM dataset, as one frame for each tile."""
    import highdicom
    from pydicom.dataset import Dataset

    height, width = rgb.shape[:2]
    padded = np.pad(rgb, ((0, -height % TILE), (0, -width % TILE), (0, 0)))
    frames = list(tiles_of(padded, TILE))
    dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns = height, width
    dataset.Rows = dataset.Columns = TILE
    dataset.NumberOfFrames = len(frames)
    dataset.DimensionOrganizationType = "TILED_FULL"
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation = "RGB"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    groups = Dataset()
    groups.PixelMeasuresSequence = highdicom.PixelMeasuresSequence(
        pixel_spacing=(mm_per_px, mm_per_px), slice_thickness=0.001
    )
    dataset.SharedFunctionalGroupsSequence = [groups]
    dataset.PixelData = b"".join(frame.tobytes() for frame in frames)
