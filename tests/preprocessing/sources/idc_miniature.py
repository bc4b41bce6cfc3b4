"""A miniature of the Imaging Data Commons: a bucket `<series>/<instance>.dcm`, an index with the real one's columns."""

import tempfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import boto3
import numpy as np
import pandas as pd
from dicom_samples import write_seg
from miniatures import Scan

BUCKET = "idc-open-data"
SOP = {"CT": "1.2.840.10008.5.1.4.1.1.2", "SEG": "1.2.840.10008.5.1.4.1.1.66.4", "PT": "1.2.840.10008.5.1.4.1.1.128"}
RAW_DATA = "1.2.840.10008.5.1.4.1.1.66"


def slab(scan: Scan, slices: int = 12) -> Scan:
    """The slices around a scan's lesion: every slice is an object of its own."""
    middle = int(np.argwhere(scan.lesion)[:, 0].mean())
    first = max(0, min(middle - slices // 2, len(scan.hu) - slices))
    part = slice(first, first + slices)
    origin = tuple(float(v) for v in scan.geometry.world((first, 0, 0)))
    geometry = replace(scan.geometry, shape=(slices, *scan.hu.shape[1:]), origin_mm=origin)
    return Scan(scan.hu[part], scan.anatomy[part], scan.lesion[part], geometry)


class Commons:
    """The bucket and the rows of its index; `options` are those that make a source read from here."""

    def __init__(self, server: str, folder: Path) -> None:
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
        self.client = boto3.client("s3", endpoint_url=server, region_name="us-east-1", **keys)
        self.client.create_bucket(Bucket=BUCKET, ACL="public-read")
        self.rows: dict[str, dict[str, object]] = {}
        self.index = folder / "index.parquet"
        self.server = server

    @property
    def options(self) -> dict[str, str]:
        """Where the bucket and the index are, the index as it is now."""
        frame = pd.DataFrame(list(self.rows.values())).astype({"analysis_result_id": "string"})
        frame.to_parquet(self.index)
        return {"mirror": self.server, "index": str(self.index)}

    def put(self, uid: str, patient: str, files: dict[str, bytes], *, revision: int = 1, **row: object) -> str:
        """A series with its objects and its row; a new revision lies at another address. Returns the address."""
        address = str(UUID(sha256(f"{uid} {revision} {self.index}".encode()).hexdigest()[:32]))
        for number, data in enumerate(files.values()):
            key = f"{address}/{UUID(int=number)}.dcm"
            self.client.put_object(Bucket=BUCKET, Key=key, Body=data, ACL="public-read")
        self.rows[uid] = {
            "collection_id": "tiny",
            "analysis_result_id": None,
            "PatientID": patient,
            "SeriesInstanceUID": uid,
            "StudyInstanceUID": f"{patient}.study",
            "source_DOI": "10.7937/tiny",
            "Modality": "CT",
            "SOPClassUID": SOP.get(str(row.get("Modality", "CT")), ""),
            "SeriesDescription": "axial",
            "SeriesNumber": "2",
            "instanceCount": len(files),
            "license_short_name": "CC BY 4.0",
            "series_revised_idc_version": revision,
            "aws_bucket": BUCKET,
            "crdc_series_uuid": address,
        } | row
        return address

    def ct(self, scan: Scan, uid: str, patient: str, *, revision: int = 1, shift: int = 0, **row: object) -> str:
        """A CT series of a scan; `shift` HU are added to its values."""
        files = _shifted(scan, shift).dicom(**_facts(uid, patient))
        return self.put(uid, patient, files, revision=revision, **row)

    def seg(self, scan: Scan, of: str, uid: str, patient: str, parts: dict[str, np.ndarray], **row: object) -> str:
        """A SEG on the images of a series `of`: {label: mask (z, y, x)}."""
        data = seg_bytes(scan, of, patient, parts)
        return self.put(uid, patient, {"seg": data}, Modality="SEG", SeriesDescription="Segmentation", **row)


def seg_bytes(scan: Scan, of: str, patient: str, parts: dict[str, np.ndarray], **changes: object) -> bytes:
    """The SEG itself; `changes` are attributes of the images that it is drawn on."""
    with tempfile.TemporaryDirectory() as folder:
        images = []
        for name, data in sorted(scan.dicom(**_facts(of, patient), **changes).items(), reverse=True):
            (Path(folder) / name).write_bytes(data)
            images.append(Path(folder) / name)
        masks = np.stack([mask.astype(np.uint8) for mask in parts.values()], axis=-1)
        segments = [(label, "structure", "") for label in parts]
        return write_seg(Path(folder) / "seg.dcm", images, masks, segments).read_bytes()


def _facts(uid: str, patient: str) -> dict[str, str]:
    return {"SeriesInstanceUID": uid, "PatientID": patient, "FrameOfReferenceUID": "1.2.6.6"}


def _shifted(scan: Scan, shift: int) -> Scan:
    return Scan((scan.hu + shift).astype(np.int16), scan.anatomy, scan.lesion, scan.geometry)
