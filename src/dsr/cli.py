"""The `dsr` command table: a command a stage, in the order of the flow, then the tools."""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from dsr import project
from dsr.console import StageError, console
from dsr.params import load

app = typer.Typer(
    help="Dynamic spatial reasoning: raw clips -> 3D cues -> questions -> a geometry-aware model -> metrics.\n\n"
    "`dvc repro` runs the stages below in order and only where something changed; each is also a command.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Root = Annotated[Path, typer.Option("--root", help="Project folder: the one with params.yaml and data/.")]
Workers = Annotated[int, typer.Option("--workers", "-j", min=0, help="Worker processes; 0 uses every core.")]
STAGES = "Stages of the pipeline"
TOOLS = "Tools"


def run_stage(module: str, root: Path, workers: int) -> None:
    """Import a stage when it is asked for, so that `--help` and light stages do not wait for torch."""
    params = load(root / project.PARAMS)
    import_module(module).run(params, root, workers)


@app.command(rich_help_panel=STAGES)
def simulate(root: Root = Path(), workers: Workers = 0) -> None:
    """Render clips of a physics world with exact truth -> data/raw/simulated/ (params: simulate)."""
    run_stage("dsr.simulator.stage", root, workers)


@app.command(rich_help_panel=STAGES)
def catalog(root: Root = Path(), workers: Workers = 0) -> None:
    """Probe every video of data/raw/<clips.source>/ -> data/clips/catalog.parquet; bad files become rows."""
    run_stage("dsr.clips.catalog", root, workers)


CompareCuration = Annotated[bool, typer.Option("--compare", help="Rules against the model of curation.llm instead.")]


@app.command(rich_help_panel=STAGES)
def curate(root: Root = Path(), workers: Workers = 0, compare: CompareCuration = False) -> None:
    """Find agents, objects, motion and category in the captions -> data/clips/curated.parquet.

    With --compare, how often rules, language model and measured motion agree -> metrics/curation.json, and the clips
    on which they differ.
    """
    if compare:
        import_module("dsr.audit.curation").run(load(root / project.PARAMS), root, workers)
    else:
        run_stage("dsr.curation.curate", root, workers)


@app.command(rich_help_panel=STAGES)
def cues(root: Root = Path(), workers: Workers = 0) -> None:
    """Make the 3D cues of every kept clip that has none of the present parameters -> data/cues/."""
    run_stage("dsr.cues.extract", root, workers)


@app.command(rich_help_panel=STAGES)
def qa(root: Root = Path(), workers: Workers = 0) -> None:
    """Derive questions in balanced quartets from the cues -> data/qa/pool.parquet and metrics/qa.json."""
    run_stage("dsr.questions.generate", root, workers)


@app.command(rich_help_panel=STAGES)
def split(root: Root = Path(), workers: Workers = 0) -> None:
    """Divide the questions by source video -> data/qa/train.parquet and data/qa/bench.parquet."""
    run_stage("dsr.questions.split", root, workers)


@app.command(rich_help_panel=STAGES)
def audit(root: Root = Path(), workers: Workers = 0) -> None:
    """Attack the questions blind and check that their labels hold -> metrics/audit.json; fails on a leak."""
    run_stage("dsr.audit.audit", root, workers)


@app.command(rich_help_panel=STAGES)
def train(root: Root = Path(), workers: Workers = 0) -> None:
    """Fine-tune the model on train.parquet -> models/gsm/ and metrics/train/; resumes where it was killed."""
    run_stage("dsr.training.train", root, workers)


Benchmark = Annotated[str, typer.Option(help="A published benchmark instead: dsr-bench, dsr-train, vlm4d, …")]
BenchmarkFolder = Annotated[Path | None, typer.Option(help="The benchmark's folder, as published.")]
Checkpoint = Annotated[Path | None, typer.Option("--model", help="Checkpoint folder instead of models/gsm.")]
Variant = Annotated[str, typer.Option(help="One part of the benchmark, such as real (vlm4d) or std (dsi-bench).")]


@app.command(rich_help_panel=STAGES)
def evaluate(
    root: Root = Path(),
    workers: Workers = 0,
    benchmark: Benchmark = "",
    benchmark_root: BenchmarkFolder = None,
    model: Checkpoint = None,
    variant: Variant = "",
) -> None:
    """Score models/gsm on bench.parquet, with controls -> metrics/eval.json and data/predictions/.

    With --benchmark and --benchmark-root, a published benchmark -> metrics/benchmarks/ and data/predictions/.
    """
    if not benchmark:
        if benchmark_root or model or variant:
            raise StageError("--benchmark-root, --model and --variant go with --benchmark")
        run_stage("dsr.evaluation.evaluate", root, workers)
        return
    if benchmark_root is None:
        raise StageError("--benchmark needs --benchmark-root, the folder with its questions and videos")
    params = load(root / project.PARAMS)
    tool = import_module("dsr.evaluation.benchmark")
    tool.run(params, root, benchmark, benchmark_root, model, variant, workers)


RunName = Annotated[str, typer.Argument(help="Predictions file, project folder, git revision or DVC experiment.")]
ControlName = Annotated[str, typer.Option(help="Which run of each: score, or a control.")]
ComparisonFile = Annotated[Path | None, typer.Option(help="JSON file to write the comparison to.")]
ExportFormat = Annotated[str, typer.Argument(help="vlmevalkit, lmms-eval, qwen-sft or sharegpt.")]
ExportFolder = Annotated[Path, typer.Argument(help="Folder to write, with the videos.")]
ExportQuestions = Annotated[str, typer.Option(help="bench, train, or a parquet file of questions.")]


@app.command(rich_help_panel=TOOLS)
def compare(
    a: RunName,
    b: RunName,
    root: Root = Path(),
    control: ControlName = "score",
    output: ComparisonFile = None,
) -> None:
    """Compare runs A and B on the same questions, by type, with intervals and McNemar's exact test."""
    options = load(root / project.PARAMS).evaluate
    stage = import_module("dsr.evaluation.compare")
    stage.run(root, a, b, control, options.bootstrap, options.seed, output)


@app.command(rich_help_panel=TOOLS)
def export(
    format: ExportFormat, folder: ExportFolder, root: Root = Path(), questions: ExportQuestions = "bench"
) -> None:
    """Write questions and videos in the format of another tool."""
    import_module("dsr.exports").run(root, format, folder, questions)


@app.command(rich_help_panel=TOOLS)
def params(
    prefix: Annotated[str, typer.Argument(help="Parameters whose keys begin so, such as qa or train.lr.")] = "",
    root: Root = Path(),
    apply: Annotated[Path | None, typer.Option(help="Write a recipe's values (configs/) into params.yaml.")] = None,
    complete: Annotated[bool, typer.Option("--complete", help="Write what params.yaml lacks into it.")] = False,
    layout: Annotated[Literal["table", "markdown", "schema"], typer.Option("--as", help="Form of the list.")] = "table",
) -> None:
    """List every parameter with type, range, default and meaning; or change params.yaml by a recipe."""
    file = import_module("dsr.params_file")
    if apply:
        file.apply(apply, root / project.PARAMS)
    if complete:
        file.complete(root / project.PARAMS)
    if layout != "table":
        typer.echo(file.markdown() if layout == "markdown" else file.schema(), nl=False)
    elif not (apply or complete):
        file.show(prefix)


@app.command(rich_help_panel=TOOLS)
def doctor(root: Root = Path()) -> None:
    """Check this machine: versions, devices, weights found or missing, free disk."""
    import_module("dsr.doctor.doctor").run(load(root / project.PARAMS), root)


@app.command(rich_help_panel=TOOLS)
def weights(
    root: Root = Path(),
    check: Annotated[bool, typer.Option("--check", help="Read the files and compare their hashes.")] = False,
) -> None:
    """List every published checkpoint: where it is had from, where it is expected, found or missing."""
    import_module("dsr.doctor.weights").run(load(root / project.PARAMS), root, check)


@app.command(rich_help_panel=TOOLS)
def convert(
    source: Annotated[Path, typer.Argument(help="Folder with config.json and *.safetensors.")],
    target: Annotated[Path, typer.Argument(help="New folder.")],
    to: Annotated[Literal["ours", "published"], typer.Option(help="Layout of the new folder.")] = "ours",
) -> None:
    """Turn the published DSR_Suite-Model checkpoint into a model folder of this project, or back."""
    import_module("dsr.model.convert").run(source, target, to)


@app.command(rich_help_panel=TOOLS)
def explain(
    qa_id: Annotated[str, typer.Argument(help="A question's id, as in data/qa/pool.parquet.")],
    png: Annotated[Path | None, typer.Option("--png", help="Draw it into this file as well.")] = None,
    model: Annotated[bool, typer.Option(help="Show where models/gsm looked too, where there is one.")] = True,
    root: Root = Path(),
) -> None:
    """Show how a question's answer comes about, why its label holds, and where the trained model looked."""
    import_module("dsr.explain.explain").run(load(root / project.PARAMS), root, qa_id, png, model)


@app.command(rich_help_panel=TOOLS)
def show(
    clip: Annotated[str, typer.Argument(help="A clip's id, as in data/clips/catalog.parquet.")],
    png: Annotated[Path | None, typer.Option("--png", help="Write a contact sheet.")] = None,
    rerun: Annotated[Path | None, typer.Option("--rerun", help="Write a rerun recording (.rrd).")] = None,
    open_viewer: Annotated[bool, typer.Option("--open", help="Open the recording in rerun's viewer.")] = False,
    root: Root = Path(),
) -> None:
    """Show a clip's cues: video, boxes, masks, depth, point cloud, camera path, trajectories, agents' axes."""
    import_module("dsr.explain.show").run(load(root / project.PARAMS), root, clip, png, rerun, open_viewer)


QuestionIds = Annotated[list[str] | None, typer.Argument(help="Questions' ids; all of the benchmark without.")]


@app.command(rich_help_panel=TOOLS)
def review(
    qa_ids: QuestionIds = None,
    pool: Annotated[bool, typer.Option("--pool/--bench", help="All questions, or the benchmark's.")] = False,
    sample: Annotated[int, typer.Option(min=0, help="How many to draw, the most doubtful first; 0: all.")] = 0,
    by: Annotated[Literal["type", "all"], typer.Option(help="With --sample: types in turn, or all together.")] = "type",
    reviewer: Annotated[str, typer.Option(help="Name in the file of verdicts. Default: git's user.name.")] = "",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of 127.0.0.1.")] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    root: Root = Path(),
    workers: Workers = 0,
) -> None:
    """Review questions by eye: answer, then accept, reject or edit -> data/qa/review.csv, which `split` applies."""
    table = project.POOL if pool else project.BENCH
    tool = import_module("dsr.review.review")
    params = load(root / project.PARAMS)
    tool.run(params, root, table, qa_ids or (), sample, by, reviewer, port, open_browser, workers)


@app.command(rich_help_panel=TOOLS)
def report(
    gallery: Annotated[int, typer.Option(min=0, help="Questions shown of those right, and of those wrong.")] = 8,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: metrics/report.html.")] = None,
    root: Root = Path(),
) -> None:
    """Write one HTML file: clips, questions, audit, evaluation, failures, and a gallery with explanations."""
    import_module("dsr.report.html").run(load(root / project.PARAMS), root, output, gallery)


koala_tools = typer.Typer(help="Koala-36M: list the videos that are missing, cut clips.", no_args_is_help=True)
app.add_typer(koala_tools, name="koala", rich_help_panel=TOOLS)


@koala_tools.command()
def missing(
    root: Root = Path(),
    output: Annotated[Path | None, typer.Option("--output", "-o", help="CSV file; else standard output.")] = None,
    urls: Annotated[Path | None, typer.Option(help="Text file: the videos' addresses, each once, a line each.")] = None,
) -> None:
    """List the clips of the catalogue that have no usable file: url, id, start, end, videoID, reason."""
    import_module("dsr.clips.fetching").run(root, output, urls)


@koala_tools.command()
def cut(root: Root = Path(), workers: Workers = 0) -> None:
    """Cut the catalogue's clips out of full videos -> <clips.koala.videos>/cut/; they can be used without, too."""
    import_module("dsr.clips.cutting").cut_koala(load(root / project.PARAMS), root, workers)


def main() -> None:
    """Run a command; an error for the user is one line, not a traceback."""
    # Before numpy is loaded. Sums that are split over threads are rounded by how many there are: questions would depend
    # on a machine's cores.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    try:
        app()
    except StageError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)
        sys.exit(1)
