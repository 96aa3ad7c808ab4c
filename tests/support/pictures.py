"""Makes the pictures of README and docs: `make pictures`, or `python -m tests.support.pictures --folder DIR`.

The pictures show what the commands of docs/first-report.md print and write. A folder that is named keeps its cells, so
that the next time only the pictures are made.
"""

import argparse
import io
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import termios
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

from tests.support.paths import ROOT, environment
from tests.support.screenshot import open_page, take
from tests.support.waiting import wait_for

DOCS = ROOT / "docs"
PICTURES = {"report.png": (1280, 840), "mlflow.png": (1280, 560)}
"""Each picture of a page in docs/, and its size in pixels."""
TERMINAL = "terminal.svg"
"""The drawing in docs/ of a terminal, whose size follows from its text."""
COLUMNS, ROWS = 110, 50
SHOWN = ("plan", "report")
"""Commands whose output the picture of the terminal shows; what the others print changes while they run."""
COLOURS = 256
WAIT = 120_000
"""Milliseconds that a page of MLflow may take on a busy machine."""


def commands_of(page: Path) -> tuple[list[list[str]], str]:
    """The words of each command of a page, and its sweep."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for language, block in blocks if not language for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines], next(block for language, block in blocks if language == "yaml")


def run_in_terminal(words: Sequence[str], folder: Path) -> str:
    """What a command prints in a terminal, with its colours."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (ROWS, COLUMNS))
    settings = environment(TERM="xterm-256color", COLORTERM="truecolor")
    command = [sys.executable, "-m", "crossfold.platform.edge.cli", *words]
    with subprocess.Popen(command, cwd=folder, stdout=theirs, stderr=theirs, env=settings) as running:
        os.close(theirs)
        printed = b""
        # Linux ends the terminal of a process that has ended with an error, and macOS with nothing.
        try:
            while part := os.read(ours, 1 << 16):
                printed += part
        except OSError:
            pass
        os.close(ours)
    if running.returncode != 0:
        raise subprocess.CalledProcessError(running.returncode, command, printed)
    return printed.decode().replace("\r\n", "\n").replace(str(folder.resolve()), "~/first").rstrip()


def draw_terminal(parts: Sequence[tuple[str, str]], out: Path) -> None:
    """Commands with what each printed, as a drawing that loads no font."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for command, printed in parts:
        console.print(Text(f"$ {command}", style="bold green"))
        console.print(Text.from_ansi(printed))
    drawn = console.export_svg(title="crossfold", unique_id="terminal")
    out.write_text(re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL), encoding="utf-8")


def take_mlflow(folder: Path, out: Path, width: int, height: int) -> None:
    """The runs of the first sweep in MLflow's view for training."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "crossfold.platform.edge.cli", "mlflow", "ui", "--port", str(port)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, env=environment(), text=True) as server:
        try:
            assert server.stdout is not None
            address = next(line.split()[-1] for line in server.stdout if "workflowType" in line)
            wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, 120)
            with open_page(address, width=width, height=height) as page:
                page.get_by_text("matching runs").wait_for(timeout=WAIT)
                # The assistant covers a third of the page, and a note on shared views the first rows.
                if (assistant := page.get_by_role("button", name="Close")).count():
                    assistant.first.click()
                page.get_by_role("button", name="Hide banner").click(timeout=WAIT)
                page.get_by_text("concat valence").first.wait_for(timeout=WAIT)
                page.screenshot(path=out)
        finally:
            server.send_signal(signal.SIGTERM)


def shrink(path: Path) -> None:
    """Keeps as many colours as a page of text and lines needs, which makes the file a third of its size."""
    with Image.open(path) as image:
        image.convert("RGB").quantize(COLOURS).save(path, optimize=True)


def make_pictures(folder: Path, out: Path) -> None:
    """Runs the commands of the page in the folder, and writes each of `PICTURES`."""
    commands, sweep = commands_of(DOCS / "first-report.md")
    (folder / "first.yaml").write_text(sweep, encoding="utf-8")
    parts = []
    for words in commands:
        if words[0] == "corpus" and (folder / words[-1]).exists():
            continue
        print("crossfold", *words, flush=True)
        parts.append((shlex.join(["crossfold", *words]), run_in_terminal(words, folder)))
    draw_terminal([part for part in parts if part[0].split()[1] in SHOWN], out / TERMINAL)
    width, height = PICTURES["report.png"]
    take(folder / ".crossfold" / "reports" / "report.html", out / "report.png", width=width, height=height)
    take_mlflow(folder, out / "mlflow.png", *PICTURES["mlflow.png"])
    for name in PICTURES:
        shrink(out / name)
    for name in (*PICTURES, TERMINAL):
        print(f"{out / name}: {(out / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="The folder to work in; else one that is removed at the end.")
    parser.add_argument("--out", type=Path, default=DOCS, help="The folder of the pictures.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        make_pictures(given.folder or Path(temporary), given.out)
