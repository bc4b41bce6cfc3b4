"""BMAD's pictures hold no HU: whoever asks for them, or brings them, is told what to ingest instead."""

import pytest
from miniatures import brought, ingested, zipped

from infra.errors import UserError
from preprocessing.sources.registry import make_source


def test_pictures_are_refused_with_what_serves_instead(tmp_path, lake, settings):
    (path,) = brought(tmp_path, {"Liver.zip": zipped({"Liver/test/Ungood/img/1_50.png": b"\x89PNG"})})
    for source in (make_source("bmad-liver"), make_source("bmad-liver", archive=(path,))):
        with pytest.raises(UserError, match=r"source bmad-liver .* no Hounsfield units; ingest .* btcv .* msd-liver"):
            ingested(lake, source, settings)
