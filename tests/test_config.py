"""A recipe is read whole or refused with one sentence. Run: pytest tests/test_config.py"""

import pytest

from manifests.errors import UserError
from trainer.config import CONFIGS, Config, read_config, setting_names


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("*.yaml")))
def test_every_recipe_that_comes_along_is_valid(name):
    config = read_config(CONFIGS / name, [])
    assert config.model.arch == "slowfast"


def test_an_override_changes_one_setting_and_reads_its_value_as_yaml():
    config = read_config(CONFIGS / "demo.yaml", ["optim.lr=3e-4", "model.se_ratio=null", "augment.scale=[1, 1]"])
    assert config.optim.lr == 3e-4
    assert config.model.se_ratio is None
    assert config.augment.scale == (1.0, 1.0)
    assert config.data == read_config(CONFIGS / "demo.yaml", []).data


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("optim.learning_rate=1", "there is no setting optim.learning_rate"),
        ("optim.epoch=3", "did you mean optim.epochs?"),
        ("optim.size=64", "did you mean data.size?"),
        ("augmnt.flip=0.5", "did you mean augment.flip?"),
        ("data.frames=many", "data.frames is 'many', but"),
        ("data.frames=18", "not a multiple of model.alpha=4; try data.frames=16"),
        ("augment.flip=1.5", "augment.flip is 1.5, but"),
        ("model.arch=resnet", "'slowfast', 'r3d18' or 'single_frame'"),
        ("seed.x=1", "there is no setting seed.x"),
        ("epochs", "write key=value"),
        ("optim.accumulate=0", "optim.accumulate is 0, but "),
        ("optim.accumulate=-3", "optim.accumulate is -3, but "),
        ("optim.accumulate=some", "or input should be 'auto'"),
        ("augment.scale=[0, 0]", "augment.scale=[0, 0] is no range of sizes"),
        ("augment.scale=[1.1, 0.9]", "say the smaller factor first, above 0"),
        ("optim.batchnorm=frozen", "say optim.batchnorm=train, or model.pretrained=kinetics400"),
        ("optim.frozen_epochs=13", "of optim.epochs=13 leave none for the backbone to learn in; say"),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_it(override, says):
    with pytest.raises(UserError) as refusal:
        read_config(CONFIGS / "demo.yaml", [override])
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_recipe_names_those_that_come_along(tmp_path):
    with pytest.raises(UserError, match=r"demo\.yaml, slowfast_face\.yaml"):
        read_config(tmp_path / "mine.yaml", [])


@pytest.mark.parametrize("text", ["[1, 2", "just words", ""])
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError):
        read_config(path, [])


def test_a_config_cannot_be_changed_after_reading():
    config = read_config(CONFIGS / "demo.yaml", [])
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 2
    assert "optim.lr" in setting_names()
    assert isinstance(config, Config)
