"""Every command, option, variable, file and link that a README names is there."""

import os
import re
import shlex
import subprocess
import tomllib
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from flows import cli
from infra.lake import open_lake
from infra.settings import Settings
from preprocessing.sources.registry import OVERRIDES

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("infra", "preprocessing", "training", "evaluation", "flows")
READMES = [ROOT / "README.md", *(ROOT / package / "README.md" for package in PACKAGES)]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MEDDIFF = get_command(cli.app)
READ_ONLY = {"sources", "cases", "plan", "doctor"}  # run for real

FENCE = re.compile(r"^```sh\n(.*?)^```", re.M | re.S)
BLOCK = re.compile(r"^```\w*\n.*?^```", re.M | re.S)  # of any language
INLINE = re.compile(r"`([^`]+)`")
COMMAND = re.compile(r"(?:\.venv/bin/)?(?:make|meddiff|prefect|pip|python3\.11) ")
LINK = re.compile(r"!?\[[^\]\n]*\]\(([^)\s]+)\)")
VARIABLE = re.compile(r"\b(?:MEDDIFF|MLFLOW|AWS|PREFECT|DASK)_[A-Z_0-9]+\b")
FILE = re.compile(r"[\w./*-]+\.(?:py|csv|yaml|toml|lock|j2|md|png)")
TREE = re.compile(rf"^ {{4}}((?:{'|'.join((*PACKAGES, 'tests'))})/\S*)(.*)$", re.M)


def commands(text: str) -> list[list[str]]:
    """The command lines of the `sh` blocks and of inline code, as words."""
    lines = [line for block in FENCE.findall(text) for line in block.splitlines()]
    lines += [code for code in INLINE.findall(BLOCK.sub("", text)) if COMMAND.match(code)]
    return [words for line in lines for words in split(line)]


def split(line: str) -> list[list[str]]:
    """The commands of a shell line, as words, without its comment."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set(";&|"):
            found.append([])
        else:
            found[-1].append(word)
    return [words for words in found if words]


def problems(text: str, folder: Path) -> list[str]:
    """What a README in `folder` names and is not there."""
    found = [wrong for words in commands(text) if (wrong := problem_of(words))]
    found += [f"no variable {name}" for name in sorted(set(VARIABLE.findall(text)) - known_variables())]
    found += [f"no file {link}" for link in LINK.findall(text) if "://" not in link and not exists(link, folder)]
    for line in BLOCK.sub("", text).splitlines():
        codes = INLINE.findall(line)
        folders = [code for code in codes if line.startswith("|") and re.fullmatch(r"[\w/]+/", code)]
        places = [folder, *(folder / name for name in folders)]
        files = [code for code in codes if FILE.fullmatch(code) and code != OVERRIDES]
        found += [f"no file {name}" for name in (*folders, *files) if not exists(name, *places)]
    for first, rest in TREE.findall(text):
        beside = Path(first).parent if "." in first else Path(first)
        names = [first, *(str(beside / name) for name in re.findall(r"(?<![\w/])\w+\.py", rest))]
        found += [f"no file {name}" for name in names if not exists(name, ROOT)]
    return found


def exists(pattern: str, *folders: Path) -> bool:
    """Whether a file or a pattern names something in one of the folders or under the root."""
    return any(any(place.glob(pattern.rstrip("/"))) for place in (*folders, ROOT))


@cache
def known_variables() -> set[str]:
    """Variables that the settings, the code, the Makefile or CI read."""
    prefix = Settings.model_config["env_prefix"]
    names = {f"{prefix}{name}".upper() for name in Settings.model_fields}
    sources = [ROOT / "Makefile", ROOT / ".ci" / "run", *(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))]
    return names | {name for path in sources for name in VARIABLE.findall(path.read_text())}


def problem_of(words: list[str]) -> str:
    """What is wrong with a command, "" where nothing is; a program that is not known here is wrong."""
    words = [word for word in words if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    if not words or words[0] == "export":
        return ""
    program, arguments = Path(words[0]).name, words[1:]
    check = {"make": _make, "meddiff": _meddiff, "prefect": _prefect, "pip": _pip, "python3.11": _python}.get(program)
    wrong = check(arguments) if check else "nothing here knows this program"
    return f"{shlex.join(words)}: {wrong}" if wrong else ""


def _make(arguments: list[str]) -> str:
    done = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stderr.strip() if done.returncode else ""


def _meddiff(arguments: list[str]) -> str:
    """Parse without running; words in capitals stand for a value."""
    if not arguments or arguments[0].startswith("--"):
        return "" if not arguments or arguments == ["--version"] else "no such option"
    command = MEDDIFF.commands.get(arguments[0])
    if command is None:
        return f"no such verb; there are {', '.join(sorted(MEDDIFF.commands))}"
    try:
        command.make_context(arguments[0], arguments[1:])
    except Exception as error:  # noqa: BLE001 - typer brings its own copy of click's exceptions
        return str(error)
    return ""


def _prefect(arguments: list[str]) -> str:
    arguments = [word for word in arguments if word != "--no-prompt"]
    if "--prefect-file" in arguments:
        file = arguments[arguments.index("--prefect-file") + 1]
        return "" if (ROOT / file).is_file() else f"no file {file}"
    if arguments[:2] == ["deployment", "run"]:
        known = [entry["entrypoint"].rsplit(".", 1)[1].replace("_", "-") + f"/{entry['name']}"
                 for entry in yaml.safe_load((ROOT / "infra" / "prefect.yaml").read_text())["deployments"]]  # fmt: skip
        return "" if arguments[2] in known else f"no such deployment; there are {', '.join(known)}"
    return "not checked here"


def _pip(arguments: list[str]) -> str:
    files = [value for option, value in pairwise(arguments) if option in ("-r", "-c")]
    missing = [file for file in files if not (ROOT / file).is_file()]
    extras = [name for names in re.findall(r"\.\[([\w,]+)\]", " ".join(arguments)) for name in names.split(",")]
    missing += [f"extra {name}" for name in extras if name not in PROJECT["optional-dependencies"]]
    wanted = {name.split("==")[0]: name for name in arguments if "==" in name}
    pinned = [line for line in PROJECT["dependencies"] if line.split("==")[0] in wanted]
    missing += [f"pin {wanted[line.split('==')[0]]}" for line in pinned if line != wanted[line.split("==")[0]]]
    return f"no {', '.join(missing)}" if missing else ""


def _python(arguments: list[str]) -> str:
    return "" if arguments[:2] == ["-m", "venv"] else "not checked here"


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name if path.parent != ROOT else "root")
def test_a_readme_names_only_what_is_there(readme):
    assert problems(readme.read_text(), readme.parent) == []


def test_the_readme_is_not_read_past():
    """The patterns above find what they are for."""
    text = READMES[0].read_text()
    words = commands(text)
    assert {"make", "meddiff", "prefect", "pip"} <= {Path(command[0]).name for command in words}
    assert {command[1] for command in words if Path(command[0]).name == "meddiff"} >= {"run", "ingest", "cases", "plan"}
    assert len(TREE.findall(text)) >= 10
    assert {"MEDDIFF_HOME", "MEDDIFF_LAKE", "PREFECT_API_URL"} <= set(VARIABLE.findall(text))


def test_a_picture_of_a_readme_is_a_small_png():
    pictures = [
        path.parent / link for path in READMES for link in LINK.findall(path.read_text()) if link[-4:] == ".png"
    ]
    assert pictures
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size < 200_000


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("```sh\nmake run fly\n```", "fly"),
        ("```sh\n.venv/bin/meddiff frobnicate x   # a comment\n```", "no such verb"),
        ("```sh\nmake test && meddiff cases --jsn\n```", "No such option"),
        ("run `meddiff pretrain --preset huge`", "'huge' is not"),
        ("run `meddiff ingest`", "Missing parameter: sources"),
        ("`meddiff --frobnicate`", "no such option"),
        ("```sh\n.venv/bin/prefect deployment run ingest/default --watch\n```", "no such deployment"),
        ("`prefect --no-prompt deploy --all --prefect-file infra/nowhere.yaml`", "no file infra/nowhere.yaml"),
        ("`pip install -r requirements-tpu.lock`", "no requirements-tpu.lock"),
        ("`.venv/bin/pip install torch==1.0`", "pin torch==1.0"),
        ("`pip install -e '.[nothing]'`", "extra nothing"),
        ("```sh\ncurl example.org\n```", "nothing here knows this program"),
        ("set `MEDDIFF_HOUSE=/data`", "MEDDIFF_HOUSE"),
        ("| `nothing.py` | does it |", "nothing.py"),
        ("| `nothing/` | holds it |", "nothing/"),
        ("`decode_*.rs`, `decoder_*.py`", "decoder_*.py"),
        ("    training/data.py   what; nothing.py, loop.py", "training/nothing.py"),
        ("    tests/nowhere/     mirrors", "tests/nowhere/"),
        ("![a picture](evaluation/nothing.png)", "evaluation/nothing.png"),
    ],
)
def test_a_readme_that_names_what_is_not_there_fails(text, wrong):
    found = problems(text, ROOT)
    assert len(found) == 1
    assert wrong in found[0]


def test_the_commands_that_only_look_really_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MEDDIFF_HOME", str(tmp_path))
    monkeypatch.setenv("MEDDIFF_LAKE", "")
    open_lake(str(tmp_path / "lake"))
    named = {tuple(words[1:]) for path in READMES for words in commands(path.read_text())
             if Path(words[0]).name == "meddiff" and words[1:] and words[1] in READ_ONLY}  # fmt: skip
    assert {verb for verb, *_ in named} >= {"sources", "cases", "plan"}
    for arguments in sorted(named):
        assert cli.run(list(arguments)) == 0, arguments
        assert capsys.readouterr().out.strip()
    assert os.environ["MEDDIFF_HOME"] == str(tmp_path)
