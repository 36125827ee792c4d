"""`genjax papers`: the catalogue of reproduced papers, read from `experiments/` and `results/`.

An experiment is a file `experiments/<family>/<slug>.py` that assigns a literal `PAPER`. It is parsed,
never imported, so the catalogue needs neither JAX nor the experiments' own imports.
"""

import ast
import difflib
import json
from pathlib import Path
from typing import NamedTuple

PAPER_FIELDS = {"number": int, "title": str, "year": int, "arxiv": str, "family": str, "kind": str}
BEGIN, END = "<!-- papers -->", "<!-- end -->"  # of the README's tables
KINDS = ("method", "study", "survey", "theory")  # a method's `get_config` has the scale "paper"


class Experiment(NamedTuple):
    """What can be known of an experiment without importing it."""

    slug: str  # the file's stem
    path: Path
    paper: dict  # PAPER, with the fields of PAPER_FIELDS
    priors: tuple  # slugs of the experiments whose trained models it needs

    @property
    def family(self):
        return self.paper["family"]


def clone_root():
    """The root of the clone that this package is used from, None where it is an installed wheel."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "experiments").is_dir() and (root / "pyproject.toml").is_file() else None


def experiments_root():
    """The folder of experiments: the clone's, or the copy inside an installed package."""
    root = clone_root()
    return root / "experiments" if root else Path(__file__).resolve().parents[1] / "_experiments"


def results_root():
    """The folder of results: the clone's, or `results` where the command runs."""
    return (clone_root() or Path.cwd()) / "results"


def _literals(path, names):
    """Literal values assigned at the top level of a Python file to any of `names`."""
    found = {}
    try:
        body = ast.parse(path.read_text(encoding="utf-8"), filename=path.name).body
    except SyntaxError as error:
        raise ValueError(f"{path.name}: line {error.lineno}: expected Python, {error.msg}") from None
    for node in body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in names:
                try:
                    found[name] = ast.literal_eval(node.value)
                except ValueError as error:
                    raise ValueError(f"{path.name}: {name}: expected a literal, {error}") from None
    return found


def _check_paper(path, paper):
    if not isinstance(paper, dict) or set(paper) != set(PAPER_FIELDS):
        found = sorted(paper) if isinstance(paper, dict) else paper
        raise ValueError(f"{path.name}: PAPER: expected a dict with the keys {sorted(PAPER_FIELDS)}, got {found}")
    for field, kind in PAPER_FIELDS.items():
        if type(paper[field]) is not kind:
            raise ValueError(f"{path.name}: PAPER: {field}: expected {kind.__name__}, got {paper[field]!r}")
    if paper["kind"] not in KINDS:
        raise ValueError(f"{path.name}: PAPER: kind: expected one of {list(KINDS)}, got {paper['kind']!r}")
    if paper["family"] != path.parent.name:
        raise ValueError(
            f"{path.name}: PAPER: family: expected the folder's name {path.parent.name!r}, got {paper['family']!r}"
        )


def find_experiments(root=None):
    """All experiments under `root`, by slug, in the order of paper numbers.

    Files without a `PAPER` (training configs, for instance) are left out.

    Raises:
      ValueError: a malformed PAPER, a file that is no Python, or two experiments of one slug.
    """
    found = {}
    for path in sorted(Path(root or experiments_root()).glob("*/*.py")):
        literals = _literals(path, ("PAPER", "PRIORS"))
        if "PAPER" not in literals:
            continue
        _check_paper(path, literals["PAPER"])
        if path.stem in found:
            raise ValueError(f"slug: {path.stem!r} is used in {found[path.stem].family} and in {path.parent.name}")
        found[path.stem] = Experiment(path.stem, path, literals["PAPER"], tuple(literals.get("PRIORS", ())))
    return dict(sorted(found.items(), key=lambda item: item[1].paper["number"]))


def select(experiments, slugs=(), family=None, everything=False):
    """The experiments that a command line names, in catalogue order.

    Slugs may be written with dashes. Raises ValueError for an unknown slug or family, with the nearest name.
    """
    if everything:
        return list(experiments.values())
    chosen = set()
    for slug in slugs:
        name = slug.replace("-", "_")
        if name not in experiments:
            near = difflib.get_close_matches(name, experiments, 1)
            hint = f", did you mean {near[0]!r}?" if near else f"; expected one of {sorted(experiments)}"
            raise ValueError(f"slug: unknown experiment {slug!r}{hint}")
        chosen.add(name)
    if family is not None:
        members = {e.slug for e in experiments.values() if e.family == family}
        if not members:
            families = sorted({e.family for e in experiments.values()})
            raise ValueError(f"family: expected one of {families}, got {family!r}")
        chosen |= members
    if not chosen:
        raise ValueError("slug: expected at least one experiment, --family or --all")
    return [e for e in experiments.values() if e.slug in chosen]


def verdict_of(slug, results=None):
    """The verdict in results/SLUG.json: "holds", "fails", or "not run"."""
    path = Path(results or results_root()) / f"{slug}.json"
    if not path.is_file():
        return "not run"
    try:
        return json.loads(path.read_text(encoding="utf-8"))["verdict"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"results/{slug}.json: expected a result with a verdict") from None


def catalogue(root=None, results=None):
    """One dict a paper: number, slug, title, year, arxiv, family, kind, verdict."""
    return [
        {"slug": e.slug, **e.paper, "verdict": verdict_of(e.slug, results)} for e in find_experiments(root).values()
    ]


def _held(slug, results):
    """("K of N", links) of results/SLUG.json; empty where there is none."""
    path = Path(results or results_root()) / f"{slug}.json"
    if not path.is_file():
        return "", ""
    claims = json.loads(path.read_text(encoding="utf-8"))["claims"]
    held = sum(claim["verdict"] == "holds" for claim in claims.values())
    return f"{held} of {len(claims)}", f"[figures](results/{slug}.json), [picture](results/{slug}.png)"


def table(root=None, results=None):
    """The README's list of papers: one Markdown table a family, with the verdicts of the committed results."""
    rows = catalogue(root, results)
    lines = []
    for family in sorted({row["family"] for row in rows}):
        members = [row for row in rows if row["family"] == family]
        held = sum(row["verdict"] == "holds" for row in members)
        lines += [f"### {family}", "", f"{len(members)} papers; all claims hold in {held}.", ""]
        lines += ["| | paper | claims that hold | verdict | result |", "|---|---|---|---|---|"]
        for row in members:
            claims, links = _held(row["slug"], results)
            paper = f"[{row['title']}](experiments/{family}/{row['slug']}.py)"
            source = f"({row['year']}, [{row['arxiv']}](https://arxiv.org/abs/{row['arxiv']}))"
            lines.append(f"| {row['number']:03d} | {paper} {source} | {claims} | {row['verdict']} | {links} |")
        lines.append("")
    return "\n".join(lines)


def write_readme(path):
    """Puts `table()` between the README's marks. Raises ValueError where it lacks them."""
    text = path.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path.name}: expected the marks {BEGIN!r} and {END!r}")
    path.write_text(f"{head}{begin}\n\n{table()}\n{end}{tail}", encoding="utf-8")


def add_arguments(parser):
    parser.add_argument("--json", action="store_true", help="print the catalogue as JSON")
    parser.add_argument("--readme", action="store_true", help="write the tables of papers into the clone's README.md")


def run(args):
    """Prints the catalogue. Returns the exit code."""
    if args.readme:
        if clone_root() is None:
            raise ValueError("--readme: expected to run from a clone, found an installed package")
        write_readme(clone_root() / "README.md")
        return 0
    rows = catalogue()
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    print(f"{'no.':>4}  {'slug':22} {'family':12} {'kind':7} {'verdict':8}  title")
    for row in rows:
        print("{number:4d}  {slug:22} {family:12} {kind:7} {verdict:8}  {title}".format(**row))
    held = sum(row["verdict"] == "holds" for row in rows)
    print(f"{len(rows)} papers, {held} hold")
    return 0
