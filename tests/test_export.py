"""One network in three files: the same answers, everything to be known inside, and times that were measured."""

import json
import re
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from films import face_frames, write_film
from toys import LABELS, TINY, make_corpus

from manifests.errors import UserError
from manifests.files import sha256_of
from trainer import export
from trainer.__main__ import main
from trainer.checkpoint import save_weights
from trainer.export import FILES, TIMED, difference, latencies, noise, table, trace, write_exported, write_onnx
from trainer.formats import WithPreprocessing, load_module, load_network
from trainer.inference import load_model
from trainer.networks import create_model, normalisation, to_input

pytest.importorskip("onnxruntime", reason="the optional packages for ONNX are not installed")
pytest.importorskip("onnxscript", reason="the optional packages for ONNX are not installed")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(run, prepared clips) of a run as `fit` leaves it."""
    folder = tmp_path_factory.mktemp("trained")
    manifest, clips = make_corpus(folder, actors=4, takes=2)
    words = ["fit", "--config", "demo.yaml", "--manifest", manifest, "--clips", clips, "--run", folder / "run"]
    assert main([str(word) for word in (*words, *TINY, "optim.epochs=1")]) == 0
    return folder / "run", clips


@pytest.fixture(scope="module")
def exported(trained):
    """The folder of both files, checked on noise and on prepared clips."""
    run, clips = trained
    out = run.parent / "exported"
    assert main(["export", "--run", str(run), "--out", str(out), "--clips", str(clips)]) == 0
    return out


SMALL = {"depth": 18, "width": 8, "alpha": 4, "beta_inv": 4, "se_ratio": None, "se_place": "residual", "dropout": 0.5}


@pytest.fixture
def weights(tmp_path):
    """The model.safetensors of a small R3D-18 in a folder of its own, without an evaluation."""
    metadata = {
        "model": {"arch": "r3d18", **SMALL}, "data": {"frames": 8, "size": 32, "span": 1.0}, "clips": {"margin": 0.3},
        "labels": list(LABELS), "synthetic": True,
    }  # fmt: skip
    path = tmp_path / "run" / "model.safetensors"
    save_weights(path, create_model(len(LABELS), **metadata["model"]).state_dict(), metadata)
    return path


def test_a_video_gets_the_same_prediction_from_each_file(trained, exported, tmp_path):
    film = write_film(tmp_path / "film.mp4", face_frames(75, sway=60))
    told = []
    for model in (trained[0] / "model.safetensors", exported / "model.pt2", exported / "model.onnx"):
        out = tmp_path / model.suffix
        assert main(["predict", str(film), "--model", str(model), "--out", str(out), "--stride", "0.3"]) == 0
        told.append(json.loads((out / "film.json").read_text()))
        assert told[-1]["model"] == model.name
    shares = np.array([[list(window["probabilities"].values()) for window in each["windows"]] for each in told])
    assert np.abs(shares - shares[0]).max() <= 1e-4
    assert np.ptp(shares[0], axis=0).max() > 1e-4, "windows differ, or agreeing would be nothing"
    assert told[0]["temperature"] is not None
    assert len({each["temperature"] for each in told}) == len({each["weights_sha256"] for each in told}) == 1


def test_each_file_carries_labels_and_preprocessing(trained, exported):
    _, metadata = load_model(trained[0] / "model.safetensors", "cpu")
    with zipfile.ZipFile(exported / "model.pt2") as archive:
        sidecar = json.loads(archive.read("archive/extra/metadata.json"))
    import onnx

    props = {prop.key: prop.value for prop in onnx.load(exported / "model.onnx").metadata_props}
    assert sidecar == json.loads(props["slowfast-emotion"])
    assert metadata.items() <= sidecar.items()
    assert sidecar["labels"] == list(LABELS)
    assert sidecar["input"]["shape"] == ["batch", 8, 3, 32, 32]
    assert sidecar["weights_sha256"] == sha256_of(trained[0] / "model.safetensors")
    evaluation = json.loads((trained[0] / "evaluation.json").read_text())
    assert sidecar["temperature"] == evaluation["temperature"]["value"]
    assert f"temperature {sidecar['temperature']:g}" in sidecar["output"]["meaning"]


@pytest.mark.parametrize(("file", "write"), [("model.pt2", write_exported), ("model.onnx", write_onnx)])
def test_a_file_has_the_same_bytes_every_time_and_no_path_of_this_machine(weights, tmp_path, file, write):
    module, metadata = load_module(weights, "cpu")
    write(trace(module, metadata), tmp_path / file, metadata)
    write(trace(module, metadata), tmp_path / "again", metadata)
    assert (tmp_path / "again").read_bytes() == (tmp_path / file).read_bytes()
    assert str(Path(export.__file__).parent).encode() not in (tmp_path / file).read_bytes()


def test_onnx_takes_any_number_of_clips_as_bytes(exported):
    import onnxruntime

    session = onnxruntime.InferenceSession(exported / "model.onnx")
    (given,), (taken,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("frames", "tensor(uint8)", ["batch", 8, 3, 32, 32])
    assert (taken.name, taken.shape) == ("logits", ["batch", 2])
    for size in (1, 2, 5):
        assert session.run(None, {"frames": np.zeros((size, 8, 3, 32, 32), np.uint8)})[0].shape == (size, 2)


def test_what_was_measured_is_in_export_json(exported):
    result = json.loads((exported / "export.json").read_text())
    assert result["formats"].keys() == {"safetensors", *FILES}
    assert all(row["ms_per_clip"] > 0 for row in result["formats"].values())
    for name, file in FILES.items():
        row = result["formats"][name]
        assert row["sha256"] == sha256_of(exported / file)
        assert [row["max_difference"][kind]["clips"] for kind in ("noise", "faces")] == [4, 8]
        assert all(apart["probabilities"] <= 1e-4 for apart in row["max_difference"].values())
    assert result["threads"] == torch.get_num_threads()
    assert result["onnx_opset"] >= 18
    assert result["versions"].keys() == {"torch", "onnx", "onnxscript", "onnxruntime"}


def test_exporting_again_does_nothing_and_a_lost_file_is_made_again(weights, capsys):
    words, made = ["export", "--run", str(weights.parent), "--format", "export"], weights.parent / "model.pt2"
    assert main(words) == 0
    before = made.stat().st_mtime_ns
    assert "nothing to do" not in capsys.readouterr().out
    assert main(words) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert made.stat().st_mtime_ns == before
    made.unlink()
    assert main(words) == 0
    assert "nothing to do" not in capsys.readouterr().out
    known = {"weights_sha256": sha256_of(weights), "temperature": {"value": 1.5}}
    (weights.parent / "evaluation.json").write_text(json.dumps(known))
    assert main(words) == 0, "a temperature that is known now makes it another file"
    assert load_network(made, "cpu")[1]["temperature"] == 1.5


def test_a_file_that_answers_differently_is_not_kept(weights, tmp_path, monkeypatch, capsys):
    def write_another(program, path, metadata):
        another = WithPreprocessing(create_model(len(LABELS), arch="r3d18", **SMALL), "r3d18").eval()
        write_exported(trace(another, metadata), path, metadata)

    monkeypatch.setattr(export, "write_exported", write_another)
    assert main(["export", "--run", str(weights.parent), "--out", str(tmp_path / "out"), "--format", "export"]) == 2
    assert "in a probability on noise and was not kept" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("arch", ["single_frame", "r3d18"])
def test_the_baselines_can_be_exported_too(arch, tmp_path):
    network = create_model(3, arch=arch, **SMALL).eval()
    module = WithPreprocessing(network, arch).eval()
    metadata = {"data": {"frames": 8, "size": 32}}
    program, batches = trace(module, metadata), noise(metadata)
    for file, write in (("model.pt2", write_exported), ("model.onnx", write_onnx)):
        write(program, tmp_path / file, metadata)
        measured = difference(module, load_network(tmp_path / file, "cpu")[0], batches)
        assert measured["probabilities"] < 1e-4
        assert measured["clips"] == 4


def test_pixels_are_normalised_inside():
    network = create_model(3, arch="r3d18", **SMALL).eval()
    frames = noise({"data": {"frames": 8, "size": 32}})[1]
    with torch.inference_mode():
        expected = network(to_input(frames, *normalisation("r3d18")))
        assert torch.equal(WithPreprocessing(network, "r3d18")(frames), expected)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_an_optional_package_there_is_one_sentence_and_pt2_still_works(
    trained, exported, tmp_path, monkeypatch, capsys, package
):
    monkeypatch.setitem(sys.modules, package, None)  # as Python marks what cannot be imported
    assert main(["export", "--run", str(trained[0]), "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(rf"error: ONNX needs {package}, which is not installed: pip install .*\n", said)
    assert load_network(exported / "model.pt2", "cpu")
    if package == "onnxruntime":
        with pytest.raises(UserError, match="pip install"):
            load_network(exported / "model.onnx", "cpu")


@pytest.mark.parametrize("file", FILES.values())
@pytest.mark.parametrize("content", ["empty", "text", "short", "zip", "of another project"])
def test_what_is_no_model_is_one_sentence(exported, tmp_path, file, content, capfd):
    path = tmp_path / file
    whole = (exported / file).read_bytes()
    path.write_bytes({"text": b"not a model" * 50, "short": whole[:-3000]}.get(content, b""))
    if content == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a", "b")
    if content == "of another project":
        torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), path)
        if file == "model.onnx":
            torch.onnx.export(torch.nn.Linear(2, 2).eval(), (torch.zeros(1, 2),), verbose=False).save(path)
    capfd.readouterr()
    with pytest.raises(UserError, match="is not a model of this project"):
        load_network(path, "cpu")
    assert capfd.readouterr().err == "", "no library has its own say"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("file", FILES.values())
def test_a_gpu_that_is_not_there_is_one_sentence_and_not_the_cpu(exported, file, capfd):
    with pytest.raises(UserError, match=r"^--device cuda, but .* --device cpu$"):
        load_network(exported / file, "cuda")
    assert capfd.readouterr().err == ""


def test_networks_are_timed_in_turns_by_the_median():
    calls = []

    def network(name, seconds):
        def run(frames):
            calls.append(name)
            # One slow call of ten, such as a machine has that does other things too, is not the median.
            time.sleep(0.2 if calls.count(name) == 3 else seconds)

        return run

    measured = latencies({"quick": network("quick", 0.002), "slow": network("slow", 0.008)}, torch.zeros(1))
    assert calls == ["quick", "slow"] * (TIMED + 1)
    assert 2 <= measured["quick"] < measured["slow"]
    assert 8 <= measured["slow"] < 100


def test_the_table_has_a_row_per_file_and_says_how_it_was_measured():
    apart = {"noise": {"clips": 4, "logits": 2e-6, "probabilities": 3e-7}, "faces": None}
    result = {
        "formats": {
            "safetensors": {"bytes": 134_900_000, "ms_per_clip": 634.29},
            "onnx": {"bytes": 135_000_000, "ms_per_clip": 262.97, "max_difference": apart},
        },
        "onnx_opset": 20, "threads": 2, "timed_clips": 10,
    }  # fmt: skip
    head, weights, onnx, note = table(result).splitlines()
    assert head.split() == ["file", "MB", "ms", "per", "clip", "largest", "difference", "on", "noise", "on", "faces"]
    assert weights.split() == ["model.safetensors", "134.9", "634.3"]
    assert onnx.split() == ["model.onnx", "135.0", "263.0", "3e-07"]
    assert "2 threads, median of 10 clips" in note
    assert "ONNX opset 20" in note
