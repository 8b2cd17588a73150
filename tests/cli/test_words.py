"""Messages of the library in the words of a command: what becomes an option, what never does."""

import pytest

from vj2_ddim_plugin.cli.app import in_options

OPTIONS = {
    name: "--" + name.replace("_", "-")
    for name in ("num_threads", "eta", "condition", "out", "seed", "project", "resume")
} | {"action_low": "--action-low", "data_dir": "--data-dir", "lr": "--lr", "json_file": "--json"}


@pytest.mark.parametrize(
    ("message", "spoken"),
    [
        # assignments
        ("pass num_threads=1.", "pass --num-threads 1."),
        ("use condition='none'", "use --condition none"),
        ('use condition="none", or eta=0.5; then', "use --condition none, or --eta 0.5; then"),
        ("(lr=1e-4, seed=-3)", "(--lr 1e-4, --seed -3)"),
        ("data_dir=/a/b.c/d is", "--data-dir /a/b.c/d is"),
        ("action_low=(0.0, -1.0)", "--action-low 0.0,-1.0"),
        ("give resume=True or project=False", "give --resume or --no-project"),
        ("give resume=False, seed=None", "give no --resume, no --seed"),
        (
            "train with representation='auto' or 'held'",
            "train with --representation auto or 'held'",
        ),
        # names
        ("num_threads must be 1", "--num-threads must be 1"),
        ("the num_threads (5) of it", "the --num-threads (5) of it"),
        ("lr, num_threads, eta", "lr, --num-threads, eta"),
        ("json_file: cannot be written", "--json: cannot be written"),
        ("eta must be in [0, 1]; found 2", "--eta must be in [0, 1]; found 2"),
        ("condition 'x' is unknown", "--condition 'x' is unknown"),
        ("seed -1 is below 0", "--seed -1 is below 0"),
        ("seed is 3; use another", "--seed is 3; use another"),
        # what stays
        ("out of memory", "out of memory"),
        ("condition latents are missing", "condition latents are missing"),
        ("project is a plain word", "project is a plain word"),
        ("a plan must have a seed, an eta", "a plan must have a seed, an eta"),
        ("the plan's eta must be 1", "the plan's eta must be 1"),
        ("/a/num_threads/b: no", "/a/num_threads/b: no"),
        (
            "data_dir.npy and data_dir/x and x.data_dir",
            "data_dir.npy and data_dir/x and x.data_dir",
        ),
        ("fields ['num_threads', \"seed\"]", "fields ['num_threads', \"seed\"]"),
        ("found 'condition=1' in it", "found 'condition=1' in it"),
        ("OMP_NUM_THREADS=1, dtype=float32", "OMP_NUM_THREADS=1, dtype=float32"),
        ("pass model= or encode=, settings={...}", "pass model= or encode=, settings={...}"),
        ("my_num_threads, num_threads_too, num_threads(3)", None),
        ("--num-threads --data_dir", "--num-threads --data_dir"),
        ("hosts' num_threads and planners' eta", "hosts' --num-threads and planners' eta"),
        ("see http://x/?seed=1&eta=2", None),
        ("", ""),
    ],
)
def test_names_become_options_and_plain_words_stay(message, spoken):
    expected = message if spoken is None else spoken
    assert in_options(message, OPTIONS, {"project": "--no-project"}) == expected
