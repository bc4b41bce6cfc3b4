"""Made-up rows of an ingested phantom."""

from preprocessing.manifest import ManifestRow
from preprocessing.regions import REGIONS
from preprocessing.sources.phantom import PhantomSource

PATIENTS = 6


def phantom_rows(patients=PATIENTS):
    """What an ingest of the phantom would commit, but for the stored volumes."""
    return [
        ManifestRow(
            source="phantom",
            case=case.id,
            patient=case.patient,
            status="sealed",
            input="0" * 16,
            key=f"ct/x/phantom/{case.id}/{'0' * 16}.zarr",
            seal="1" * 64,
            regions=REGIONS,
            anatomy="full",
            lesion=True,
            licence="Apache-2.0",
            version=case.version,
        )
        for case in PhantomSource(patients=patients).cases()
    ]
