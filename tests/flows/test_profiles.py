"""Profiles: the demo's counts hold, and a split that is too small ends the run by name."""

import pytest
from flow_samples import phantom_rows

from flows.profiles import demo, require_splits
from infra.errors import UserError
from preprocessing import recipe
from preprocessing.manifest import Manifest, commit, read_manifest
from preprocessing.sources.phantom import PhantomSource
from preprocessing.split import patient_split


def test_the_demo_phantom_lists_enough_patients_of_every_region_and_split():
    options = demo().sources[-1].options
    cases = PhantomSource(**options).cases()
    profile = demo()
    need = {"val": profile.min_validation, "test": profile.min_test}
    for region in profile.regions:
        for split, least in need.items():
            patients = {
                case.patient
                for case in cases
                if region in case.declared_regions
                and patient_split("phantom", case.patient, profile.full_recipe.split) == split
            }
            assert len(patients) >= least, f"{region} {split}: {len(patients)}"


def test_an_empty_split_is_an_error_that_names_it(lake):
    commit(lake, recipe.demo(), {"phantom": phantom_rows(2)})
    with pytest.raises(UserError, match=r"split 'val' of region 'head_neck' has 0 patients, profile 'demo' needs 3"):
        require_splits(read_manifest(lake, recipe.demo()), demo())


def test_enough_patients_pass(lake):
    commit(lake, recipe.demo(), {"phantom": phantom_rows(36)})
    require_splits(read_manifest(lake, recipe.demo()), demo())


def test_a_region_without_validation_patients_is_named(lake):
    manifest = commit(lake, recipe.demo(), {"phantom": phantom_rows(36)})
    rows = manifest.rows.copy()
    rows.loc[rows["split"] == "val", "regions"] = [("head_neck", "chest")] * (rows["split"] == "val").sum()
    with pytest.raises(UserError, match="split 'val' of region 'abdomen' has 0 patients"):
        require_splits(Manifest(rows, 1), demo())


def test_own_data_stand_beside_the_phantom():
    sources = demo(data="/data/cts").sources
    assert [spec.name for spec in sources] == ["folder", "phantom"]
    assert sources[0].options == {"path": "/data/cts"}


def test_the_profile_is_one_json_form():
    schema = demo().model_json_schema()
    assert schema["properties"]["sources"]["description"]
    assert "phantom" in schema["$defs"]["SourceSpec"]["properties"]["name"]["enum"]
    assert demo() == type(demo()).model_validate(demo().model_dump(mode="json"))
