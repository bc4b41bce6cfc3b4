"""AbdomenCT-1K as it is served: images in three zips, masks of most of them in a 7z, one scan twice."""

from miniatures import anatomy_of, ingested, rows, scan, served, seven_zipped, statuses, zipped

from preprocessing.sources.registry import make_source
from preprocessing.store import open_case


def archives() -> dict[str, bytes]:
    """Case 78 has a mask and no true spacing, 297 and 928 are one scan, 1062 has no mask."""
    abdomen, other = scan("abdomen"), scan("abdomen", 1)
    values = abdomen.labelled({1: "liver", 2: "kidney_left", 3: "spleen", 4: "pancreas"})
    images = [
        {"Case_00078_0000": abdomen, "Case_00297_0000": other},
        {"Case_00928_0000": other},
        {"Case_01062_0000": abdomen},
    ]
    zips = {
        f"AbdomenCT-1K-ImagePart{part}.zip": zipped(
            {f"AbdomenCT-1K-ImagePart{part}/{name}.nii.gz": image.nifti() for name, image in members.items()}
        )
        for part, members in enumerate(images, 1)
    }
    masks = {"Case_00078.nii.gz": abdomen.nifti(values)}
    masks |= {f"Case_00{number}.nii.gz": other.nifti(other.labelled({1: "liver"})) for number in (297, 928)}
    return zips | {"Mask.7z": seven_zipped(masks)}


def test_images_of_three_zips_meet_the_masks_of_a_7z(server, lake, settings):
    source = make_source("abdomenct-1k", **served(server, archives()))
    ingested(lake, source, settings)
    found = rows(lake)
    assert set(statuses(found.values()).values()) == {"sealed"}
    assert anatomy_of(lake, found["Case_00078"]) == {"liver", "spleen", "pancreas", "unknown"}, "a kidney has no side"
    assert [row.anatomy for row in found.values()] == ["partial", "partial", "partial", "none"]
    assert found["Case_00928"].patient == found["Case_00297"].patient == "Case_00297"
    assert {row.licence for row in found.values()} == {"research only"}

    findings = {case: " ".join(open_case(lake, row.key).record.findings) for case, row in found.items()}
    assert "1 x 1 x 1 mm is not the scan's" in findings["Case_00078"]
    assert "the same scan as Case_00928" in findings["Case_00297"]
    assert "no label file" in findings["Case_01062"]

    asked = len(server.log)
    again = ingested(lake, source, settings)
    assert (again.converted, again.unchanged) == (0, 4)
    assert len(server.log) == asked
