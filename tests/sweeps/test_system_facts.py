"""What plans keep of the systems: the same as the systems say, and never older than their files."""

import json
import os
import subprocess
import sys

import pytest

from crossfold.platform.core.errors import UserError
from crossfold.sweeps.kept_files import kept_file
from crossfold.sweeps.sweep_files import Variant
from crossfold.sweeps.system_facts import variant_facts

VARIANTS = [
    ["rjca+dca", {"iterations": 2}],
    ["grjca", {"variant": "released"}],
    ["leader_follower", {}],
    ["transformer", {"modalities": "audio+visual+text"}],
]
ASK = """
import json, sys
from dataclasses import asdict
from crossfold.sweeps.sweep_files import Variant
from crossfold.sweeps.system_facts import variant_facts
asked = [Variant(system=system, params=params) for system, params in json.loads(sys.argv[1])]
print(json.dumps([[asdict(facts) for facts in variant_facts(asked)], "torch" in sys.modules]))
"""


def ask(cache, variants):
    env = {**os.environ, "CROSSFOLD_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(variants)], env=env, stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)


def test_facts_are_kept_and_read_without_torch(tmp_path):
    facts, imported = ask(tmp_path, VARIANTS)
    assert imported
    own = variant_facts([Variant(system=system, params=params) for system, params in VARIANTS])
    assert [each["params"] for each in facts] == [each.params for each in own]
    assert [(tuple(each["modalities"]), each["revision"]) for each in facts] == [
        (each.modalities, each.revision) for each in own
    ]
    assert ask(tmp_path, VARIANTS[::-1]) == [facts[::-1], False]
    # One that is not kept asks the systems, and is kept with the others.
    assert ask(tmp_path, [*VARIANTS[:1], ["ca", {}]])[1]
    assert ask(tmp_path, [*VARIANTS, ["ca", {}]])[1] is False
    (kept,) = tmp_path.glob("variants-*.json")
    kept.write_text('{"damaged": 1')
    assert ask(tmp_path, VARIANTS) == [facts, True]


def test_unknown_systems_and_parameters_are_refused():
    with pytest.raises(UserError, match="unknown system 'rjcb'"):
        variant_facts([Variant(system="rjcb")])
    with pytest.raises(UserError, match="parameters of rjca: unknown key 'iteration'"):
        variant_facts([Variant(system="rjca", params={"iteration": 2})])


def test_a_kept_file_is_of_these_sources(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSFOLD_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "sources"
    (folder / "blocks").mkdir(parents=True)
    source = folder / "ca.py"
    source.write_text("a = 1\n")
    before = kept_file("rows", folder)
    assert before.parent == tmp_path / "cache"
    assert kept_file("rows", folder) == before
    source.write_text("a = 2\n")
    changed = kept_file("rows", folder)
    (folder / "blocks" / "gate.py").write_text("")
    assert len({before, changed, kept_file("rows", folder)}) == 3
