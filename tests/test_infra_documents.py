"""Commands reach a machine in documents that no parameter can break. Run: pytest tests/test_infra_documents.py"""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stack import kind, of_type

from infra.documents import COMMANDS, RUN_ID, SCRIPTS, SESSIONS, document, session

every_command = pytest.mark.parametrize("command", COMMANDS)
every_script = pytest.mark.parametrize("command", [*COMMANDS, *SESSIONS])


def script(command):
    return (SCRIPTS / f"{command}.sh").read_text()


def test_every_script_is_a_document_and_every_document_a_script():
    declared = {d.inputs["name"].rpartition("-")[2]: d for d in of_type(kind("default"), ":Document")}
    assert set(declared) == set(COMMANDS) | set(SESSIONS) == {path.stem for path in SCRIPTS.glob("*.sh")}
    for command, resource in declared.items():
        made = (document if command in COMMANDS else session)(command, script(command))
        assert json.loads(resource.inputs["content"]) == made


@every_command
def test_a_document_runs_its_script_unchanged(command):
    content = document(command, script(command))
    assert content["schemaVersion"] == "2.2"
    (step,) = content["mainSteps"]
    assert step["action"] == "aws:runShellScript"
    assert "\n".join(step["inputs"]["runCommand"]) == script(command).rstrip("\n")
    # SSM runs the lines with sh; a first line that names another shell is honoured only as the very first.
    assert step["inputs"]["runCommand"][0].startswith("#!")


def test_a_session_shows_its_script_to_an_ordinary_user():
    content = session("attach", script("attach"))
    assert (content["schemaVersion"], content["sessionType"]) == ("1.0", "InteractiveCommands")
    assert content["properties"]["linux"] == {"commands": script("attach"), "runAsElevated": False}


@every_script
def test_a_parameter_stands_alone_between_quotes_at_the_top(command):
    lines = script(command).splitlines()
    _, parameters = (COMMANDS | SESSIONS)[command]
    head = lines[1 : 1 + len(parameters)]
    assert head == [f"{name.upper()}='{{{{ {name} }}}}'" for name in parameters]
    # Any other pair of braces would be one more parameter to SSM.
    assert not [line for line in lines[1 + len(parameters) :] if "{{" in line]


@every_script
def test_every_parameter_has_a_pattern_that_lets_no_shell_syntax_through(command):
    made = document if command in COMMANDS else session
    for parameter in made(command, "#!/bin/sh")["parameters"].values():
        assert re.fullmatch(r"\^.*\$", parameter["allowedPattern"])
        for text in ("a'b", "a b", "$(id)", "`id`", "a;b", "a\nb", "abc\n; id", '"', "../x", "", "-rf"):
            assert not re.search(parameter["allowedPattern"].replace("$", r"\Z"), text)


@given(st.text())
def test_no_text_that_is_a_run_s_name_needs_quoting(text):
    if re.search(RUN_ID.replace("$", r"\Z"), text):
        assert re.fullmatch(r"[a-z0-9-]{3,63}", text)


def test_documents_are_updated_in_place_and_never_wait_for_a_run():
    for resource in of_type(kind("default"), ":Document"):
        if resource.inputs["documentType"] == "Session":
            continue
        content = json.loads(resource.inputs["content"])
        assert int(content["mainSteps"][0]["inputs"]["timeoutSeconds"]) <= 600
        assert (resource.inputs["documentType"], resource.inputs["documentFormat"]) == ("Command", "JSON")
