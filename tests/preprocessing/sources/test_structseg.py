"""StructSeg as its four zips hold it: numbered folders with data and label; the tumour tasks repeat the scans."""

from miniatures import anatomy_of, brought, ingested, rows, scan, statuses, zipped

from preprocessing.sources.registry import make_source

HEAD = {20: "spinal_cord"}
CHEST = {3: "heart", 4: "esophagus", 5: "trachea", 6: "spinal_cord"}


def task(folder, name, view, classes, numbers=(1, 2)) -> str:
    """The zip of one task: labels in its values, or the lesion as 1 where it has none."""
    files = {}
    for number in numbers:
        body = scan(view, number - 1)
        label = body.labelled(classes) if classes else body.lesion
        files[f"{name.partition('_')[2]}/{number}/data.nii.gz"] = body.nifti()
        files[f"{name.partition('_')[2]}/{number}/label.nii.gz"] = body.nifti(label)
    return brought(folder, {f"{name}.zip": zipped(files)})[0]


def test_a_scan_of_two_tasks_is_one_case_with_both_labels(tmp_path, lake, settings):
    paths = (
        task(tmp_path, "Task1_HaN_OAR", "head_neck", HEAD),
        task(tmp_path, "Task2_Naso_GTV", "head_neck", {}, [1]),
        task(tmp_path, "Task3_Thoracic_OAR", "chest", CHEST, [1]),
        task(tmp_path, "Task4_Lung_GTV", "chest", {}, [1]),
    )
    ingested(lake, make_source("structseg", archive=paths), settings)
    found = rows(lake)
    assert statuses(found.values()) == {"HaN-1": "sealed", "HaN-2": "sealed", "Thoracic-1": "sealed"}
    assert [found[case].lesion for case in sorted(found)] == [True, False, True]
    assert anatomy_of(lake, found["HaN-1"]) == {"spinal_cord", "unknown"}
    assert anatomy_of(lake, found["Thoracic-1"]) >= {"heart", "esophagus", "trachea", "spinal_cord", "unknown"}
    assert {row.licence for row in found.values()} == {"research only"}

    again = ingested(lake, make_source("structseg", archive=paths), settings)
    assert (again.converted, again.unchanged) == (0, 3)


def test_the_same_scans_under_other_numbers_are_found_by_their_files(tmp_path, lake):
    files = {
        f"Naso_GTV/9/{name}.nii.gz": scan("head_neck", 0).nifti(array)
        for name, array in (("data", None), ("label", scan("head_neck", 0).lesion))
    }
    (tumour,) = brought(tmp_path, {"Task2_Naso_GTV.zip": zipped(files)})
    source = make_source("structseg", archive=(task(tmp_path, "Task1_HaN_OAR", "head_neck", HEAD), tumour))
    both, other = source.cases(lake)
    assert [len(both.labels), len(other.labels)] == [2, 1]


def test_a_tumour_task_alone_keeps_its_patients_out_of_other_splits(tmp_path, lake):
    alone = make_source("structseg", archive=(task(tmp_path, "Task2_Naso_GTV", "head_neck", {}, [2]),)).cases(lake)
    organs = make_source("structseg", archive=(task(tmp_path, "Task1_HaN_OAR", "head_neck", HEAD),)).cases(lake)
    assert alone[0].patient == organs[1].patient == "head-2"
