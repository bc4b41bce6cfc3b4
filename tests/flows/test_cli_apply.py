"""Verbs that use a model on one's own CT: what lies where afterwards, and one sentence for what a user can mend."""

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from command import call
from ct_samples import write_dicom
from PIL import Image
from training_worlds import RECIPE, SMALL, make_lake, volume, write_ct

from training.config import FinetuneConfig, PretrainConfig, TrainConfig
from training.launch import finetune, pretrain

README = Path(__file__).resolve().parents[2] / "README.md"
TRAIN = TrainConfig(
    iterations=4, batch_size=2, accumulate=1, learning_rate=1e-2, warmup=2, validation_samples=0, picture_every=0
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Urls of a pre-trained model and of its ControlNet for lesions."""
    lake = make_lake(tmp_path_factory.mktemp("models") / "lake")
    base = pretrain(lake, RECIPE, PretrainConfig(preset="tiny", model=SMALL, train=TRAIN))
    control = finetune(lake, RECIPE, FinetuneConfig(preset="tiny", task="lesion", train=TRAIN), base)
    return {"": f"{lake.url}/{base.key}", "lesion": f"{lake.url}/{control.key}"}


def on_chest(*arguments):
    return (*map(str, arguments), "--region", "chest")


def test_a_ct_is_denoised_into_a_file_like_it_and_a_picture(tmp_path, models, capsys):
    source, output = write_ct(tmp_path / "ct.nii.gz", codes="RAS"), tmp_path / "clean.nii.gz"
    code, out, err = call(capsys, *on_chest("denoise", source, output, "--model", models[""], "--sigma", "90"))
    assert code == 0, err
    assert out.startswith(f"{output}: noise given as chest 90.0 HU")
    assert "is a demonstration, trained in minutes: try the command, trust no result" in err
    before, after = nib.load(source), nib.load(output)
    assert (before.affine == after.affine).all()
    assert (np.asarray(before.dataobj) != np.asarray(after.dataobj)).any()
    with Image.open(f"{output}.png") as picture:
        assert picture.width > 600


def test_the_readmes_python_does_the_same(tmp_path, models, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_ct(tmp_path / "scan.nii.gz")
    (code,) = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.M | re.S)
    exec(code.replace("open_model()", f"open_model({models['']!r})"), {})
    given = ("--model", models[""], "--sigma", 20, "--no-preview")
    assert call(capsys, *on_chest("denoise", "scan.nii.gz", "same.nii.gz", *given))[0] == 0
    one, same = (np.asarray(nib.load(f"{name}.nii.gz").dataobj) for name in ("clean", "same"))
    np.testing.assert_array_equal(one, same)


def test_of_several_cts_those_that_can_be_used_are_done(tmp_path, models, capsys):
    paths = [write_ct(tmp_path / f"{name}.nii.gz") for name in ("one", "two")]
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"no image")
    arguments = ("denoise", paths[0], bad, paths[1], tmp_path / "out", "--model", models[""], "--sigma", 90)
    code, out, err = call(capsys, *on_chest(*arguments, "--no-preview"))
    assert code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["one.nii.gz", "two.nii.gz"]
    assert len(out.splitlines()) == 2
    assert "bad.nii.gz is not a readable NIfTI file" in err.replace("\n", " ")


def test_dicom_series_come_back_as_series_and_are_replaced_only_where_asked(tmp_path, models, capsys):
    stored = (volume(3, lesion=False)[0] + 1024).astype(np.int16)
    places = [(0.0, 0.0, 4.0 * k) for k in range(len(stored))]
    sources = [tmp_path / "1.2.3", tmp_path / "other"]
    for path in sources:
        write_dicom(path, stored, places, RescaleIntercept=-1024, PixelSpacing=[4, 4], SliceThickness=4)
    output = tmp_path / "out"
    verb = on_chest("denoise", *sources, output, "--model", models[""], "--sigma", "90", "--no-preview")
    code, _, err = call(capsys, *verb)
    assert code == 0, err
    made = sorted((output / "1_2_3").iterdir())
    assert len(made) == len(stored)
    assert len(list((output / "other").iterdir())) == len(stored)
    slice_ = pydicom.dcmread(made[len(made) // 2])
    assert slice_.PatientID == "P-1"
    assert "denoise: noise given as chest 90.0 HU" in slice_.DerivationDescription
    assert (slice_.pixel_array != stored[len(made) // 2]).any()

    code, _, err = call(capsys, *verb)
    assert code == 1
    assert err.replace("\n", " ").count("exists already; name another output") == 2
    assert call(capsys, *verb, "--overwrite")[0] == 0


def test_a_lesion_is_drawn_and_an_anomaly_mapped_where_a_mask_says(tmp_path, models, capsys):
    source = write_ct(tmp_path / "ct.nii.gz")
    image = nib.load(source)
    mask = np.zeros(image.shape, np.uint8)
    mask[9:15, 8:14, 22:28] = 1
    nib.save(nib.Nifti1Image(mask, image.affine), tmp_path / "mask.nii.gz")
    sick = tmp_path / "sick.nii.gz"
    shared = ("--mask", tmp_path / "mask.nii.gz", "--steps", 3)
    code, out, err = call(capsys, *on_chest("inpaint", source, sick, *shared, "--model", models["lesion"]))
    assert code == 0, err
    changed = np.asarray(nib.load(sick).dataobj) != np.asarray(image.dataobj)
    assert changed[mask > 0].any()
    assert not changed[:, :, :10].any()
    code, out, err = call(
        capsys, *on_chest("detect", source, tmp_path / "map.nii.gz", *shared, "--repeats", 1, "--model", models[""])
    )
    assert code == 0, err
    assert "score " in out
    found = np.asarray(nib.load(tmp_path / "map.nii.gz").dataobj)
    assert found[mask > 0].max() > 0
    assert not found[mask == 0].any()
    threshold, outlined = float(np.median(found[mask > 0])), tmp_path / "outlined.nii.gz"
    arguments = ("--repeats", 1, "--model", models[""], "--segmentation", outlined, "--threshold", threshold)
    code, out, err = call(capsys, *on_chest("detect", source, tmp_path / "again.nii.gz", *shared, *arguments))
    assert code == 0, err
    assert 0 < np.asarray(nib.load(outlined).dataobj).sum() < mask.sum()


def test_a_ct_with_and_without_a_lesion_is_drawn_from_a_map(tmp_path, models, capsys):
    ids = np.zeros((24, 22, 20), np.uint8)
    ids[2:22, 2:20] = 118
    ids[6:18, 6:16, 4:16] = 5
    nib.save(nib.Nifti1Image(ids, np.diag([-4.0, -4, 4, 1])), tmp_path / "map.nii")
    shared = ("--region", "abdomen", "--steps", 2)
    code, out, err = call(
        capsys, "synthesize", tmp_path / "map.nii", tmp_path / "ct.nii.gz", *shared, "--model", models[""]
    )
    assert code == 0, err
    assert "20 x 22 x 24 voxels of 4 mm, synthetic" in out
    made = nib.load(tmp_path / "ct.nii.gz")
    assert made.shape == ids.shape
    assert b"not for diagnosis" in made.header["descrip"].item()
    code, out, err = call(
        capsys, "generate-lesion", tmp_path / "map.nii", tmp_path / "sick.nii.gz", *shared,
        "--organ", "liver", "--radius", 9, "--model", models["lesion"],
    )  # fmt: skip
    assert code == 0, err
    image, mask = (nib.load(tmp_path / name) for name in ("sick.nii.gz", "sick_lesion.nii.gz"))
    assert image.shape == mask.shape
    code, out, err = call(
        capsys, "generate-lesion", tmp_path / "map.nii", tmp_path / "again.nii.gz", *shared,
        "--mask", tmp_path / "sick_lesion.nii.gz", "--model", models["lesion"], "--sampler", "ddim",
    )  # fmt: skip
    assert code == 0, err
    again = nib.load(tmp_path / "again_lesion.nii.gz")
    assert (np.asarray(again.dataobj) == np.asarray(mask.dataobj)).all()
    code, out, err = call(
        capsys, "synthesize", tmp_path / "map.nii", tmp_path / "look.nii.gz", *shared,
        "--level", "image", "--guidance", 1.5, "--model", models[""],
    )  # fmt: skip
    assert code == 0, err
    assert nib.load(tmp_path / "look.nii.gz").shape == (8, 8, 8)
    assert (image.affine == mask.affine).all()
    assert 0 < np.asarray(mask.dataobj).mean() < 0.5
    assert {"ct.nii.gz.png", "sick.nii.gz.png"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["denoise", "ct.nii.gz"], 2, "give at least one CT and the output"),
        (["denoise", "ct.nii.gz", "out.nii.gz"], 1, "no model meddiff-fm is registered in MLflow"),
        (["denoise", "none.nii.gz", "out.nii.gz", "--model", "MODEL"], 1, "none.nii.gz is not there"),
        (["denoise", "ct.nii.gz", "ct.nii.gz", "--model", "MODEL"], 1, "is the input itself, which is never replaced"),
        (["denoise", "ct.nii.gz", "out", "--model", "MODEL"], 1, "its image is no DICOM series"),
        (["denoise", "ct.nii.gz", "out.nii.gz", "--model", "MODEL", "--region", "head_neck"], 1, "has never seen"),
        (["inpaint", "ct.nii.gz", "out.nii.gz", "--model", "MODEL", "--mask", "ct.nii.gz"], 1, "fine-tuned for lesion"),
        (["generate-lesion", "ct.nii.gz", "out.nii.gz", "--model", "MODEL"], 2, "either --organ or --mask"),
        (["detect", "ct.nii.gz", "out.nii.gz", "--model", "MODEL", "--mask", "no.nii"], 1, "no.nii is not there"),
    ],
)
def test_what_a_user_can_mend_is_a_sentence(tmp_path, models, capsys, monkeypatch, arguments, code, sentence):
    write_ct(tmp_path / "ct.nii.gz")
    monkeypatch.chdir(tmp_path)
    region = [] if "--region" in arguments else ["--region", "chest"]
    given = [models[""] if argument == "MODEL" else argument for argument in arguments]
    got, out, err = call(capsys, *given, *region)
    assert (got, out) == (code, "")
    assert sentence in err.replace("\n", " ")
    assert not (tmp_path / "out.nii.gz").exists()
