"""README and guides: command lines pass the option check of their program, cheap commands and Python examples
run, links and pictures are there."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

import main
import static_dynamic
from static_dynamic.analysis.tasks import features
from static_dynamic.command import Options
from static_dynamic.configs import CONFIG_DIR, rows
from static_dynamic.configs.options import check, translate
from tests.analysis.finished import finished_run
from tests.conftest import moving_square, write_frames
from tests.paths import ROOT

GUIDE = ROOT / "CONTRIBUTING.md"
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "stylize/styles/README.md")),
    GUIDE,
    *sorted((ROOT / "docs").glob("*.md")),
]
SHELLS = ("bash", "sh", "console")
PROGRAMS = ("python", "static-dynamic", "torchrun", "bash", "make", "pip", "misc/", "pre-commit")
INLINE = re.compile(r"`((?:python|static-dynamic|torchrun|make|pip|bash) [^`]+)`")
FENCE = re.compile(r"^```(\S*)")


@dataclass(frozen=True)
class Block:
    """A fenced or indented block of a page; an indented one has the language ``""``."""

    page: Path
    line: int
    language: str
    text: str
    section: str  # the last heading of second level
    before: str  # the last line of text


@dataclass(frozen=True)
class Command:
    """A command line of a page, as words of a shell."""

    where: str
    words: tuple[str, ...]

    def __str__(self):
        return f"{self.where} {' '.join(self.words)}"


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page, and every block that is indented by four spaces."""
    found, inside, start, language = [], [], 0, None
    before = section = text = ""
    for number, line in enumerate([*page.read_text(encoding="utf-8").splitlines(), ""], start=1):
        fence = FENCE.match(line)
        if language is None and line.startswith("## "):
            section = line.removeprefix("## ")
        if language is None and fence:
            inside, start, language = [], number, fence[1] or "text"
        elif language is None and line.startswith("    ") and not before.strip():
            inside, start, language = [line[4:]], number, ""
        elif language == "" and not line.startswith("    "):
            found.append(Block(page, start, language, "\n".join(inside), section, text))
            language = None
        elif language and fence:
            found.append(Block(page, start, language, "\n".join(inside), section, text))
            language = None
        elif language is not None:
            inside.append(line[4:] if language == "" else line)
        elif line.strip():
            text = line
        before = line
    assert language is None, f"{page}: a block has no end"
    return found


def prose(page: Path) -> str:
    """The text of a page outside fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)


def commands() -> Iterator[Command]:
    """Every command line of the pages: in shell blocks, in indented blocks, and between backquotes."""
    for page in PAGES:
        name = page.relative_to(ROOT)
        for block in blocks(page):
            if block.language in (*SHELLS, "") and not block.section.startswith("Add "):
                yield from commands_of(block)
        for inline in INLINE.findall(prose(page)):
            yield Command(str(name), tuple(shlex.split(inline)))


def commands_of(block: Block) -> Iterator[Command]:
    """The command lines of a block; of an indented one those that start with a known program."""
    for line in block.text.replace("\\\n", " ").splitlines():
        line = line.strip()
        if block.language or line.startswith(PROGRAMS) or re.match(r"[A-Z_]+=\S* ", line):
            for part in line.split(" && "):
                words = shlex.split(part, comments=True)
                if words:
                    yield Command(f"{block.page.relative_to(ROOT)}:{block.line}", tuple(words))


COMMANDS = list(dict.fromkeys(commands()))


class Parsed(BaseException):
    """The options of a script are good, and its work is not to begin."""


@pytest.fixture
def parse_only(monkeypatch):
    """Let scripts end where they have parsed their options."""

    def parse_args(self, args=None, namespace=None):
        argparse.ArgumentParser.parse_args(self, args, namespace)
        raise Parsed

    monkeypatch.setattr(Options, "parse_args", parse_args)

    def call(module: str, words):
        program = importlib.import_module(module)
        monkeypatch.setattr(sys, "argv", [program.__file__, *words])
        with pytest.raises(Parsed):
            program.main()

    return call


def options_of_program(words: tuple[str, ...]) -> tuple[str, ...] | None:
    """Options that a command line gives to the program; None where it starts another one."""
    if words[0] == "static-dynamic":
        return words[1:]
    if words[0] == "torchrun":
        return words[words.index("main.py") + 1 :]
    return words[2:] if words[:2] == ("python", "main.py") else None


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_every_command_line_passes_the_option_check(command, parse_only):
    words = command.words
    variables = [word.partition("=")[0] for word in words if re.match(r"[A-Z_]+=", word)]
    words = words[len(variables) :]
    options = options_of_program(words)
    if options is not None:
        if "--help" not in options:
            check(translate(options))
    elif words[:2] == ("python", "-m"):
        module = f"static_dynamic.{words[2]}" if words[2].startswith("stylize.") else words[2]
        if module == words[2] or not words[3:]:
            assert importlib.util.find_spec(module), command
        else:
            parse_only(module, words[3:])
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), command
        parse_only(f"static_dynamic.{words[1].removesuffix('.py').replace('/', '.')}", words[2:])
    elif words[0] == "bash" or words[0].endswith(".sh"):
        script, *rest = words[words[0] == "bash" :]
        assert all(name in (ROOT / script).read_text() for name in variables), command
        overrides = [word for word in rest if "=" in word]
        network = ["--cfg_file", "configs/matnet_davis.json"] if script == "run_main_vos.sh" else []
        check(translate([*network, *overrides]))
    elif words[0] == "make":
        targets = re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert set(words[1:]) <= set(targets), command
    elif words[0] == ".venv/bin/python":
        assert words[1:3] == ("-m", "pytest") and all((ROOT / word).exists() for word in words[3:])
    elif words[:2] == ("pip", "install"):
        check_pip(words[2:])
    else:
        assert words[0] in ("git", "cd", "pre-commit"), f"no check for {command}"


def check_pip(words: tuple[str, ...]):
    """Files exist, and extras are those of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in words:
        for extra in re.findall(r"\[(.*)\]", word):
            assert set(extra.split(",")) <= set(project["optional-dependencies"]), word
        if word.endswith(".txt"):
            assert (ROOT / word).is_file(), word


@pytest.fixture(scope="session")
def places(tmp_path_factory):
    """The names that the pages use for folders of the reader -> such folders, all below ``HERE``."""
    here = tmp_path_factory.mktemp("reader")
    for style in (0, 1, 2):
        for k in range(8):
            frames = moving_square(k, n=8)
            write_frames(here / "DIR" / f"style_{style}" / f"clip{k}", 255 - frames if style == 2 else frames)
    listed = "".join(f"clip{k},{k % 2}\n" for k in range(8))
    (here / "DIR" / "clips.csv").write_text(f"video,class\n{listed}")
    runs = {"RUN": {}, "PILOT": {}, "A": {}, "B": {"model": "small"}}
    runs |= {f"{name}{seed}": runs[name] | {"seed": seed} for name in "AB" for seed in (1, 2)}
    runs |= {f"dim_outputs/i3d/folder/seed00{seed}": {"seed": seed} for seed in (1, 2)}
    for name, options in runs.items():
        finished_run(here / name, names="clip{}".format, root=here / "DIR", **options)
    options = ["task=features", "model=small_cnn", "model.init=random", "dataset=folder", "task.views=all"]
    options += ["styles='1,2'", f"stylized_data_dir={here / 'DIR'}", f"run_dir={here / 'FEATURES'}"]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        features.run(compose("config", overrides=[*options, "num_workers=0"]))
    package = here / "mypackage"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from collections import OrderedDict\nfrom torch import nn\n\n\ndef build():\n"
        "    head = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 5))\n"
        "    return nn.Sequential(OrderedDict(layer1=nn.Conv3d(3, 4, 3), head=head))\n"
    )
    return {name: str(here / name) for name in ("DIR", *runs)} | {"HERE": str(here)}


def filled_in(words, places: dict[str, str]) -> list[str]:
    """Words with the names of folders filled in."""
    return [re.sub(r"\b[A-Z]+\d?\b", lambda name: places.get(name[0], name[0]), word) for word in words]


CHEAP_TASKS = ("compare", "information", "units", "convergence", "plan", "report", "stages")


def value_of(options, name: str) -> str | None:
    """The value of ``name=value`` or ``--name value``."""
    for k, word in enumerate(options):
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
        if word == f"--{name}":
            return options[k + 1]
    return None


CHEAP = [
    command
    for command in COMMANDS
    if (options := options_of_program(command.words)) is not None
    and ("--help" in options or value_of(options, "task") in CHEAP_TASKS)
]


@pytest.mark.parametrize("command", CHEAP, ids=str)
def test_cheap_commands_run(command, in_process, places):
    words = filled_in(options_of_program(command.words), places)
    if "--help" not in words:
        words += ["n_boot=20", "n_permutations=5"]
    if value_of(words, "task") == "plan" and "--help" not in words:
        words.append("task.seconds_per_view=1")  # a run without a network has measured none
    status, out, err = in_process(main, *words)
    assert status == 0, err
    assert out


TINY = [
    command
    for command in COMMANDS
    if command.words[:2] == ("python", "main.py")
    and not {"-m", "--help"} & set(command.words)
    and value_of(command.words, "model") in ("x3d_m", "custom")
    and "DIR" in " ".join(command.words)
    and value_of(command.words, "shards") is None
]


@pytest.mark.parametrize("command", TINY, ids=str)
def test_main_jobs_run_on_a_tiny_data_set(command, in_process, places, monkeypatch):
    monkeypatch.syspath_prepend(places["HERE"])
    words = [word for word in filled_in(command.words[2:], places) if not word.endswith(".pyth")]
    if "--checkpoint" in words:
        words.remove("--checkpoint")
    small = ["model.input.size=40", "model.input.crop=32", "n_boot=20", "num_workers=0", "styles='1,2'"]
    status, out, err = in_process(main, *words, "model.init=random", "n_examples=2", *small)
    assert status == 0, err
    assert ("features/" if value_of(words, "task") == "features" else "dynamic score") in out


def test_averages_of_the_documented_folders(in_process, places):
    from static_dynamic.misc import average_runs

    (command,) = {c.words for c in COMMANDS if c.words[:2] == ("python", "misc/average_runs.py")}
    folders = sorted(Path(places["HERE"]).glob(command[2]))
    assert len(folders) == 2
    status, out, err = in_process(average_runs, *folders)
    assert status == 0 and "score_dynamic_ci" in out, err


PYTHON = [block for page in PAGES if page != GUIDE for block in blocks(page) if block.language == "python"]


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"{block.page.name}:{block.line}")
def test_python_examples_run(block, places, monkeypatch):
    monkeypatch.chdir(places["HERE"])
    exec(compile(block.text, f"{block.page}:{block.line}", "exec"), {"__name__": "__main__"})


ADDED = [block for block in blocks(GUIDE) if block.section.startswith("Add ")]


def file_of(block: Block) -> str:
    """The file that a block belongs to: the last one named in the text before it."""
    return re.findall(r"`([\w/]+\.\w+)`", block.before)[-1]


@pytest.fixture(scope="session")
def extended(tmp_path_factory):
    """A copy of the checkout to which every example of the guide for contributors is added."""
    copy = tmp_path_factory.mktemp("copy")
    for part in ("analysis", "configs", "datasets", "misc", "models", "static_dynamic", "stylize"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("main.py", "pyproject.toml"):
        shutil.copy(ROOT / file, copy)
    for block in ADDED:
        if block.language not in SHELLS:
            path = copy / file_of(block)
            there = path.read_text(encoding="utf-8") + "\n\n" if path.exists() else ""
            path.write_text(f"{there}{block.text}\n", encoding="utf-8")
    return copy


def test_examples_for_contributors_keep_to_the_style(extended):
    files = {file_of(block) for block in ADDED if block.language == "python"}
    ruff = [sys.executable, "-m", "ruff", "check", *files]
    done = subprocess.run(ruff, cwd=extended, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("section", list(dict.fromkeys(block.section for block in ADDED)))
def test_examples_for_contributors_are_short_and_run(section, extended, places):
    own = [block for block in ADDED if block.section == section]
    code = [block for block in own if block.language not in SHELLS]
    lines = [line for block in code for line in block.text.splitlines() if line.strip()]
    assert len(lines) <= 15
    (command,) = [command for block in own if block.language in SHELLS for command in commands_of(block)]
    words = filled_in(command.words[2:], places)
    if value_of(words, "runs") is None:
        words += ["model.input.size=40", "model.input.crop=32", "n_examples=4", "num_workers=0"]
    words += ["n_boot=20", "n_permutations=5", f"save_dir={extended / 'results'}"]
    done = subprocess.run([sys.executable, "main.py", *words], cwd=extended, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    for name in re.findall(r"``(\w+\.(?:csv|png))``", "\n".join(lines)):
        assert list((extended / "results").rglob(name)), f"{name} is not written"


def slug(heading: str) -> str:
    """The anchor that a heading gets: small letters, no punctuation, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_are_there(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        other = (page.parent / file).resolve() if file else page
        assert other.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", prose(other), re.M)
            assert anchor in map(slug, headings), f"{page.name} links to {target}"


def test_the_list_of_random_streams_names_functions_that_exist():
    text = (ROOT / "docs" / "random_streams.md").read_text(encoding="utf-8")
    named = re.findall(r"([\w/]+\.py) `([\w.]+)`", text)
    assert len(named) > 20
    for file, function in named:
        name = function.rpartition(".")[2]
        code = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(rf"^ *(def|class) {name}\b|^{name}\b", code, re.M), f"{file} has no {function}"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


def test_nothing_that_a_user_can_choose_is_left_out():
    text = "\n".join(page.read_text() for page in PAGES)
    known = [f"task={name}" for name in rows("task") if name != "profile"]
    known += [f"`{name}`" for name in rows("dataset")]
    adapters = ("custom", "huggingface", "pytorchvideo", "timm", "torchvision")
    known += [f"model={name}" if name in adapters else f"`{name}`" for name in rows("model")]
    known += [path.name for path in (ROOT / "misc").iterdir() if path.suffix in (".py", ".sh")]
    missing = {name for name in known if name not in text}
    assert missing <= {"static_dynamic.py", "__init__.py"}  # no commands


def test_the_citation_file_and_the_changelog_name_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == static_dynamic.__version__ and citation["license"] == "MIT"
    for reference in citation["references"]:
        assert {"type", "title", "authors", "year"} <= set(reference)
        assert all({"family-names", "given-names"} == set(author) for author in reference["authors"])
        assert reference["title"] in (ROOT / "README.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] == static_dynamic.__version__
