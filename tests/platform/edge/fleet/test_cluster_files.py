"""The ready files of docs/cluster: each is read by what will read it, and calls Crossfold as it can be called."""

import os
import re
import shlex
import subprocess

import pytest
import typer
import yaml

from tests.support.paths import ROOT

CLUSTER = ROOT / "docs" / "cluster"


def options_of(command: str) -> set[str]:
    """The options that a Crossfold command knows."""
    from crossfold.platform.edge.cli.app import app

    known = typer.main.get_command(app).commands[command]
    return {option for parameter in known.params for option in parameter.opts}


def check_crossfold(line: str) -> None:
    words = shlex.split(line)
    verb, *rest = words[words.index("crossfold") + 1 :]
    asked = {word.partition("=")[0] for word in rest if word.startswith("--")}
    assert "--workspace" in asked
    assert asked <= options_of(verb), f"{line}: {asked - options_of(verb)}"


@pytest.mark.parametrize("name", ["rayjob.yaml", "ray-up.yaml", "slurm.sh"])
def test_every_call_of_crossfold_has_options_that_exist(name):
    text = (CLUSTER / name).read_text()
    calls = re.findall(r"crossfold (?:run|submit) (?:SWEEP|\"\$SWEEP\")[^\n'&]*", text)
    assert calls
    for call in calls:
        check_crossfold(call.replace('"$@"', ""))


def test_the_rayjob_is_one_whose_pods_share_the_workspace():
    job = yaml.safe_load((CLUSTER / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert spec["entrypointNumCpus"] == 0
    assert set(yaml.safe_load(spec["runtimeEnvYAML"])) == {"env_vars"}
    cluster = spec["rayClusterSpec"]
    pods = [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
    for pod in pods:
        (container,) = pod["spec"]["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts == {"workspace": "/workspace"}
        assert [volume["name"] for volume in pod["spec"]["volumes"]] == ["workspace"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
    assert "--workspace /workspace" in spec["entrypoint"]
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0", "no cell runs on the head"
    assert "nvidia.com/gpu" not in str(head)
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_rayjob_asks_for_a_token():
    cluster = yaml.safe_load((CLUSTER / "rayjob.yaml").read_text())["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}


def test_the_rayjob_names_the_ray_that_is_locked():
    locked = re.search(r"^ray(?:\[[^\]]*\])?==(\S+)", (CLUSTER.parents[1] / "requirements.lock").read_text(), re.M)
    job = yaml.safe_load((CLUSTER / "rayjob.yaml").read_text())
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == locked.group(1)


def test_ray_itself_accepts_the_cluster_file():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((CLUSTER / "ray-up.yaml").read_text())
    validate_config(prepare_config(config))
    with pytest.raises(Exception, match="head_start_ray_comands"):
        validate_config(prepare_config({**config, "head_start_ray_comands": []}))


SCONTROL = "#!/bin/sh\nprintf 'node1\\nnode2\\n'\n"
SRUN = """#!/bin/sh
echo "srun $*" >> "$LOG"
case "$*" in *"ray start"*) exec sleep 60;; esac
"""
DRIVER = """#!/bin/sh
echo "crossfold $* token=$(wc -c < "$RAY_AUTH_TOKEN_PATH")" >> "$LOG"
trap 'echo stopping >> "$LOG"; sleep 0.3; echo stopped >> "$LOG"; exit 130' TERM
while [ -n "$LINGER" ]; do sleep 0.05; done
exit 1
"""


@pytest.fixture
def allocation(tmp_path):
    """Two nodes as Slurm would give them, with what the script calls replaced by what writes down the call."""
    tools = tmp_path / "checkout" / ".venv" / "bin"
    tools.mkdir(parents=True)
    for name, text in {"scontrol": SCONTROL, "srun": SRUN, "crossfold": DRIVER}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    environment = {
        **os.environ,
        "CROSSFOLD": str(tmp_path / "checkout"),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "LOG": str(tmp_path / "log"),
    }
    return tmp_path, environment


def start(environment, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        ["bash", str(CLUSTER / "slurm.sh"), *words], env=environment, start_new_session=True, stderr=subprocess.PIPE
    )


def end(process: subprocess.Popen) -> None:
    subprocess.run(["pkill", "-9", "-s", str(process.pid)], check=False)


def test_the_slurm_script_starts_ray_everywhere_and_passes_the_exit_code_on(allocation):
    folder, environment = allocation
    process = start(environment, "demo", "--set", "epochs=3")
    try:
        assert process.wait(30) == 1
    finally:
        end(process)
    told = (folder / "log").read_text()
    assert re.search(r"srun .*--nodelist=node1 .*ray start --head --node-ip-address=node1 --port=6379", told)
    assert re.search(r"srun --nodes=1 .*--exclude=node1 .*ray start --address=node1:6379", told)
    assert "run demo --workspace" in told
    assert "--address node1:6379 --set epochs=3 token=65" in told
    assert not list((folder / "checkout" / ".crossfold").glob(".ray-token-*")), "the token is gone with the job"


def test_the_slurm_script_lets_the_driver_write_its_checkpoints(allocation):
    folder, environment = allocation
    process = start({**environment, "LINGER": "1"}, "demo")
    try:
        for _ in range(300):
            if (folder / "log").is_file() and "crossfold run" in (folder / "log").read_text():
                break
            subprocess.run(["sleep", "0.1"], check=True)
        process.terminate()
        assert process.wait(30) == 130
    finally:
        end(process)
    assert (folder / "log").read_text().endswith("stopping\nstopped\n")


def test_the_slurm_script_asks_for_a_sweep(allocation):
    _, environment = allocation
    process = start(environment)
    assert process.wait(10) != 0
    assert b"give a sweep" in process.stderr.read()


def test_the_shell_reads_the_slurm_script():
    subprocess.run(["bash", "-n", str(CLUSTER / "slurm.sh")], check=True)
