"""What the report says of each task: its title, what was asked, and what may be concluded."""

TASK_TEXTS: dict[str, tuple[str, str, str]] = {
    "synthesis": (
        "Synthesis",
        "Draw a CT of a region from nothing but a held-out patient's anatomy map.",
        "Distances are between sets of features; their extractor is part of the name. A random extractor guards "
        "against regressions and says nothing about realism.",
    ),
    "denoising": (
        "Denoising",
        "Remove noise from a CT without having been trained for it and without being told the anatomy.",
        "A posterior mean is made for PSNR and looks smooth; a sample keeps texture and pays for it in PSNR. "
        "label-mean is what the labels alone would buy, the ceiling what the reference's own noise allows.",
    ),
    "anomaly": (
        "Anomaly detection",
        "Re-draw an organ as if it were healthy and look for the difference; no lesion was marked for training.",
        "Comparable numbers are those within the organ: a mask of the organ alone scores high over a whole image. "
        "Intensity alone is the baseline to beat. Lesions of a stated contrast are painted into healthy organs; "
        "contrast 0 HU changes nothing and shows what a method scores by the place alone.",
    ),
    "superresolution": (
        "Super-resolution",
        "Recover the slices that were averaged along the body's axis.",
        "A single draw invents detail and may score below interpolation. The test averages slices exactly as training "
        "did; a scanner does not.",
    ),
    "lesion-generation": (
        "Lesion generation",
        "Draw a CT that has a lesion exactly where a mask asks for one.",
        "The segmenter finds a lesion again near the mask it is given; its score on real lesions is the ceiling. The "
        "HU histogram distance is from lesions of training patients; real lesions show how much patients differ.",
    ),
    "lesion-inpainting": (
        "Lesion inpainting",
        "Put a lesion into an existing CT and leave everything else untouched.",
        "Voxels outside the inpainted zone are copied from the source, so only the zone and its border are judged.",
    ),
}
