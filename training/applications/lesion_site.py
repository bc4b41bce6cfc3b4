"""Where lesions of a kind lie: inside an organ of a map, or in the tissue beside vessels, as lymph nodes do."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from infra.errors import UserError
from preprocessing.anatomy import BODY, class_ids
from preprocessing.case import CaseError, RegionName
from preprocessing.decoding.decode import read_raster
from preprocessing.geometry import distances_mm
from preprocessing.resample import resample_onto
from training.applications.anatomy_map import AnatomyMap
from training.applications.scan import Scan, onto, shifted

NODE_REACH_MM = 20.0  # of a lymph node's tissue from the vessels and airways that it lies along


@dataclass(frozen=True)
class Site:
    """A place that is no class of its own: several classes together, or the tissue of the body beside them."""

    classes: tuple[str, ...]
    region: RegionName
    beside: bool = False


SITES = {
    "lung": Site(
        (
            *("lung_upper_lobe_left", "lung_lower_lobe_left"),
            *("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"),
        ),
        "chest",
    ),
    "mediastinal_lymph_node": Site(("trachea", "esophagus", "superior_vena_cava"), "chest", beside=True),
    "abdominal_lymph_node": Site(
        ("inferior_vena_cava", "portal_vein_and_splenic_vein", "aorta"), "abdomen", beside=True
    ),
}


def site_mask(given: AnatomyMap, site: str) -> NDArray[np.bool_]:
    """The voxels of a map in which a lesion of that site lies: those of a class, or of one of SITES.

    Raises:
        UserError: there is no such class or site, it belongs to another region, or the map does not show it.
    """
    known = class_ids()
    if site not in known and site not in SITES:
        near = ", ".join(sorted(name for name in (*known, *SITES) if site.split("_")[0] in name)[:6])
        raise UserError(f"{site!r} is no class of the anatomy{f'; there is {near}' if near else ''}")
    place = SITES.get(site, Site((site,), given.region))
    if place.region != given.region:
        raise UserError(f"{site} lies in the {place.region}, and the map shows the {given.region}")
    shown = np.isin(given.ids_ZYX, [known[name] for name in place.classes])
    if not shown.any():
        raise UserError(f"the map shows no {' or '.join(place.classes)}; choose an organ that it names")
    if not place.beside:
        return shown
    away_mm = ndimage.distance_transform_edt(~shown, sampling=given.geometry.spacing_mm)
    return (given.ids_ZYX == BODY) & (away_mm <= NODE_REACH_MM)


def lesion_within(given: AnatomyMap, site: str, radius_mm: float, seed: int) -> NDArray[np.bool_]:
    """A ball that lies wholly inside a site of a map, anywhere in it.

    Raises:
        UserError: as `site_mask`, or no ball of that size fits.
    """
    inside = site_mask(given, site)
    depth = ndimage.distance_transform_edt(inside, sampling=given.geometry.spacing_mm)
    places = np.argwhere(depth > radius_mm)
    if not len(places):
        raise UserError(
            f"no ball of {radius_mm:g} mm fits into the {site}, which is {2 * depth.max():.0f} mm thick at most; "
            "choose a smaller radius"
        )
    centre = places[np.random.default_rng(seed).integers(len(places))]
    return distances_mm(inside.shape, centre, given.geometry.spacing_mm) <= radius_mm


def lesion_in_scan(scan: Scan, site: str, radius_mm: float, seed: int) -> NDArray[np.bool_]:
    """A ball wholly inside a site of a scan's own labels, on the scan's grid; in the region that shows most of it.

    Raises:
        UserError: the scan has no labels, shows no region of the site, or as `lesion_within`.
    """
    if scan.stored.record.anatomy == "none":
        raise UserError(
            f"{scan.case.id} has no anatomy labels to find the {site} by; give its folder with the labels beside the "
            "image, or the lesion itself with --mask"
        )
    place, ids = SITES.get(site), scan.stored.read_all("anatomy")
    extents = [e for e in scan.regions if place is None or e.name == place.region]
    if not extents:
        raise UserError(f"{site} lies in the {place.region if place else ''}, which {scan.case.id} does not show")
    wanted = [class_ids()[name] for name in (place.classes if place else (site,)) if name in class_ids()]
    extent = max(extents, key=lambda e: int(np.isin(ids[e.z_start : e.z_stop], wanted).sum()))
    grid = shifted(scan.stored.geometry(0), extent)
    ball = lesion_within(AnatomyMap(ids[extent.z_start : extent.z_stop], grid, extent.name), site, radius_mm, seed)
    return onto(ball.astype(np.uint8), grid, scan.volume.geometry, nearest=True) > 0


def read_lesion(given: AnatomyMap, path: Path) -> NDArray[np.bool_]:
    """A lesion's mask (a file, everything above 0) at the voxels of a map.

    Raises:
        UserError: it is not there, cannot be read, or marks nothing within the map's body.
    """
    if not path.is_file():
        raise UserError(f"{path} is not there; give the lesion's mask (NIfTI, NRRD or MetaImage)")
    try:
        raster = read_raster([str(path)])
    except CaseError as error:
        raise UserError(str(error)) from None
    lesion = resample_onto((raster.array > 0).astype(np.uint8), raster.geometry, given.geometry, nearest=True) > 0
    if not (lesion & (given.ids_ZYX > 0)).any():
        raise UserError(f"{path.name} marks nothing within the body of the map; draw it in the map's frame")
    return lesion
