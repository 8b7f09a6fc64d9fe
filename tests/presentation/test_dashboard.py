"""A study in Optuna's dashboard: what is written for it, what is left alone, who is answered."""

import io
import json
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from typing import Any

import optuna_dashboard
import pytest
from optuna.trial import TrialState
from rigged import add_trial, attributes, keep_record, rigged_store
from sqlalchemy import event
from whole_records import whole_layer, whole_record

from sculpt.errors import InputError, StorageError
from sculpt.presentation.dashboard import annotations
from sculpt.presentation.dashboard.annotations import annotate
from sculpt.presentation.dashboard.attributes import StudyAttributes
from sculpt.presentation.dashboard.server import DashboardServer, guarded, is_loopback, open_server
from sculpt.storage.opening import open_store
from sculpt.storage.store import Store
from sculpt.table import code, prose

LAYERS = [whole_layer("stem.weight", shape=[4, 1, 3, 3], kept=20)]


def add_recorded(store: Store, errors: list[float], role: str = "candidate", **found: Any) -> None:
    """Add a finished trial with a record whose layers can be drawn."""
    base = role == "base"
    params = {} if base else {"widening": 2}
    system = keep_record(store, whole_record(errors, layers=LAYERS, params=params))
    study = store.base if base else store.candidates
    add_trial(study, attributes(errors, role, **found), params, system=system)


@pytest.fixture
def store(tmp_path):
    """A study with a base, two candidates, and others that came to nothing."""
    found = rigged_store(tmp_path, search__confirm={"top": 1, "seeds": 2})
    add_recorded(found, [0.2, 0.3], "base")
    add_recorded(found, [0.1, 0.2])
    add_recorded(found, [0.3, 0.5], kept_macs=2_000_000.0)
    for state, attribute in [
        (TrialState.PRUNED, {"stopped_because": "after epoch 3: beaten"}),
        (TrialState.PRUNED, {"infeasible": "at most 9 MACs"}),
        (TrialState.FAIL, {"error": "ValueError: <b>`|\n\n# no"}),
        (TrialState.RUNNING, {}),
    ]:
        add_trial(found.candidates, attribute, {"widening": 3}, state)
    yield found
    found.storage.close()


def notes(study: Any) -> dict[int | None, str]:
    """Return the notes of a study, by trial, as the dashboard's own API has them; None: its own."""
    storage = study._storage
    detail = get(optuna_dashboard.wsgi(storage), f"/api/studies/{study._study_id}")
    found = {trial["number"]: trial["note"]["body"] for trial in detail["trials"]}
    return {None: detail["note"]["body"]} | found


def get(application: Any, path: str) -> Any:
    _, body = ask(application, path)
    return json.loads(body)


def ask(application: Any, path: str, **headers: Any) -> tuple[str, bytes]:
    """Return the status and the body that a WSGI application answers with."""
    answered: list[Any] = []
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "HTTP_ACCEPT_ENCODING": "",
    }
    body = application(environ | headers, lambda *rest: answered.extend(rest))
    content = b"".join(body)
    if hasattr(body, "close"):  # a file, which servers close
        body.close()
    return answered[0], content


def written(store: Store) -> list[dict[str, Any]]:
    """Return all attributes of the three studies: notes with their versions, and files."""
    studies = [store.base, store.candidates, store.confirmation]
    return [store.storage.get_study_system_attrs(s._study_id) for s in studies if s]


class TestMarkdown:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("widening 2", "`widening 2`"),
            ("a`b", "`` a`b ``"),
            ("``", "``` `` ```"),
            ("one\n\n# two\t three", "`one # two three`"),
            ("", "` `"),
            ("<img src=x>", "`<img src=x>`"),
        ],
    )
    def test_code(self, text, expected):
        assert code(text) == expected
        assert len(code(text + "x" * 5000)) < 700

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("2.50 ± 0.1 % (n 3)", "2.50 ± 0.1 % (n 3)"),
            ("a_b *c* [d](e) <f>", r"a\_b \*c\* \[d\](e) \<f\>"),
            ("1. item\n- item", r"1\. item - item"),
            ("2) item", r"2\) item"),
            ("- item", r"\- item"),
            ("---", r"\---"),
            ("# title", r"\# title"),
            ("![x](y) `z` &amp; $m$", r"\!\[x\](y) \`z\` \&amp; \$m\$"),
        ],
    )
    def test_prose(self, text, expected):
        assert prose(text) == expected


class TestNotes:
    def test_every_ended_trial_has_one(self, store):
        annotate(store)
        found = notes(store.candidates)
        for number, parts in enumerate(
            [
                ["15.00 ± 7.07 % (n 2)", "base: not distinguishable", "complete, on the front"],
                ["**Candidate 1**: complete\n", "kept MACs: 2.00 M"],
                ["stopped", "`after epoch 3: beaten`"],
                ["infeasible", "`at most 9 MACs`"],
                ["`` ValueError: <b>`| # no ``"],
            ]
        ):
            assert not [part for part in parts if part not in found[number]]
        assert found[5] == "", "it is still running"
        assert "**Base**: complete" in notes(store.base)[0]

    def test_the_study_s_says_where_everything_is(self, store, tmp_path):
        annotate(store)
        note = notes(store.candidates)[None]
        base, confirm = store.base._study_id, store.confirmation._study_id
        for part in (
            f"[tiny/base](/dashboard/studies/{base})",
            f"[tiny/confirm](/dashboard/studies/{confirm})",
            "sculpt pareto tiny",
            "3 of 99 trials complete",
            "can be told from the dense base",  # the verdict
        ):
            assert part in note
        back = f"(/dashboard/studies/{store.candidates._study_id})"
        assert back in notes(store.base)[None]
        assert back in notes(store.confirmation)[None]
        empty = rigged_store(tmp_path / "empty")
        annotate(empty)
        assert "Nothing has finished yet" in notes(empty.candidates)[None]

    def test_the_confirmation_s_have_the_test_errors(self, store):
        assert store.confirmation
        store.confirmation.set_user_attr("selected", [0])
        store.confirmation.set_user_attr("seeds", 2)
        for candidate, role, arm, errors in [
            ("base", "base", "sculpted", [0.5, 0.6]),
            (0, "candidate", "sculpted", [0.2, 0.4]),
            (0, "candidate", "shuffled", [0.7, 0.9]),
        ]:
            found = attributes([0.3, 0.3], role, test_errors=errors)
            about = {"candidate": candidate, "arm": arm, "seeds": 2}
            add_trial(store.confirmation, found | about)
        annotate(store)
        found = notes(store.confirmation)
        assert "test error: 55.00 ± 7.07 % (n 2)" in found[0]
        assert "against: base\n- verdict: not distinguishable" in found[1]
        assert "**Candidate 0, its mask shuffled within layers**" in found[2]
        assert "against: 0\n- verdict: not distinguishable" in found[2]

    def test_a_second_start_writes_only_what_is_new(self, store):
        annotate(store)
        before = written(store)
        annotate(store)
        assert written(store) == before
        add_recorded(store, [0.9, 0.8])
        annotate(store)
        after = written(store)
        assert "80.00" not in str(before)
        assert "85.00" in notes(store.candidates)[6]
        kept = [key for key in before[1] if key.startswith("artifacts:")]
        assert {key: after[1][key] for key in kept} == {key: before[1][key] for key in kept}
        assert "4 of 99 trials complete" in notes(store.candidates)[None], "sculpt's own is renewed"

    def test_what_a_person_wrote_is_left_alone(self, store):
        annotate(store)
        application = optuna_dashboard.wsgi(store.storage)
        page = f"/api/studies/{store.candidates._study_id}"
        edited = notes(store.candidates)[0] + " I agree"
        for path, body in [(f"{page}/note", "mine"), (f"{page}/{trial_id(store, 0)}/note", edited)]:
            sent = json.dumps({"version": 2, "body": body}).encode()
            headers = {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(sent))}
            headers |= {"REQUEST_METHOD": "PUT", "wsgi.input": io.BytesIO(sent)}
            assert ask(application, path, **headers)[0].startswith("204")
        add_recorded(store, [0.01, 0.02])  # it changes what would be said of both
        annotate(store)
        found = notes(store.candidates)
        assert (found[None], found[0]) == ("mine", edited)
        assert "kept MACs: 2.00 M" in found[1], "the others are kept up"


def trial_id(store: Store, number: int) -> int:
    study = store.candidates._study_id
    return store.storage.get_trial_id_from_study_id_trial_number(study, number)


class TestPlots:
    def test_they_stand_in_the_notes_and_can_be_had(self, store):
        annotate(store)
        for study, name in ((store.base, "base"), (store.candidates, "trial-1")):
            path = StudyAttributes(study, store.storage).files[f"layers-{name}.png"]
            assert f"![layer sparsities]({path})" in "".join(notes(study).values())
            application = optuna_dashboard.wsgi(store.storage, artifact_store=store.artifacts)
            assert ask(application, path)[1].startswith(b"\x89PNG")

    def test_the_base_and_the_front_come_first(self, store, monkeypatch):
        add_recorded(store, [0.15, 0.25], kept_macs=3_000_000.0)  # second best, not on the front
        monkeypatch.setattr(annotations, "MOST_PLOTS", 3)
        annotate(store)
        assert set(StudyAttributes(store.base, store.storage).files) == {"layers-base.png"}
        candidates = StudyAttributes(store.candidates, store.storage).files
        assert set(candidates) == {"layers-trial-0.png", "layers-trial-6.png"}

    def test_one_that_was_deleted_in_the_dashboard_is_drawn_again(self, store):
        annotate(store)
        application = optuna_dashboard.wsgi(store.storage, artifact_store=store.artifacts)
        path = StudyAttributes(store.candidates, store.storage).files["layers-trial-0.png"]
        assert ask(application, f"/api{path}", REQUEST_METHOD="DELETE")[0].startswith("204")
        assert "layers-trial-0.png" not in StudyAttributes(store.candidates, store.storage).files
        annotate(store)
        again = StudyAttributes(store.candidates, store.storage).files["layers-trial-0.png"]
        assert again != path
        assert again in notes(store.candidates)[0]

    def test_without_a_record_there_are_notes_all_the_same(self, store):
        add_trial(store.candidates, attributes([0.1, 0.1]), {"widening": 4})
        with pytest.raises(StorageError, match="json of trial 6 must lie in"):
            annotate(store)
        assert "10.00 ± 0.00 %" in notes(store.candidates)[6]
        assert "layers-trial-1.png" in StudyAttributes(store.candidates, store.storage).files


@pytest.mark.slow
def test_reading_does_not_wait_for_pytorch(store):
    lines = [
        "import sys",
        "from sculpt.presentation.dashboard.annotations import annotate",
        "from sculpt.presentation.dashboard.server import open_server",
        "from sculpt.storage.opening import open_store",
        "store = open_store('tiny', sys.argv[1])",
        "annotate(store)",
        "open_server(store, '127.0.0.1', 0).server_close()",
        "print('torch' in sys.modules)",
    ]
    command = [sys.executable, "-c", "\n".join(lines), store.config.storage_url]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


class TestGuard:
    @staticmethod
    def application(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        start("200 OK", [])
        return [b"the dashboard"]

    @pytest.mark.parametrize(
        ("host", "origin", "answered"),
        [
            ("127.0.0.1:8080", None, True),
            ("localhost:9090", None, True),  # a forwarded port
            ("[::1]:8080", None, True),
            ("127.0.0.1:8080", "http://127.0.0.1:8080", True),
            ("rebound.example:8080", None, False),
            ("rebound.example:8080", "http://rebound.example:8080", False),
            ("", None, False),
            ("127.0.0.1:8080", "http://other.example", False),
            ("127.0.0.1:8080", "http://127.0.0.1:3000", False),
            ("127.0.0.1:8080", "null", False),
            ("127.0.0.1.other.example", None, False),
            ("[bad", None, False),
            ("127.0.0.1:8080", "http://[bad", False),
        ],
    )
    def test_on_loopback(self, host, origin, answered):
        sent = {"HTTP_HOST": host} | ({} if origin is None else {"HTTP_ORIGIN": origin})
        status, body = ask(guarded(self.application, only_loopback=True), "/", **sent)
        assert (status, body == b"the dashboard") == (
            "200 OK" if answered else "403 Forbidden",
            answered,
        )

    def test_elsewhere_any_name_will_do(self):
        application = guarded(self.application, only_loopback=False)
        assert ask(application, "/", HTTP_HOST="box.example")[0] == "200 OK"
        other = {"HTTP_HOST": "box.example", "HTTP_ORIGIN": "http://other.example"}
        assert ask(application, "/", **other)[0] == "403 Forbidden"
        assert ask(application, "/", HTTP_HOST="[bad")[0] == "403 Forbidden"

    def test_what_is_loopback(self):
        assert all(map(is_loopback, ["127.0.0.1", "127.1.2.3", "::1", "localhost"]))
        assert not any(map(is_loopback, ["0.0.0.0", "::", "192.168.0.1", "box.example"]))


class TestServer:
    @pytest.fixture
    def server(self, store):
        with open_server(store, "127.0.0.1", 0) as found:
            thread = threading.Thread(target=found.serve_forever)
            thread.start()
            yield found
            found.shutdown()
            thread.join()

    def test_it_answers_while_another_request_hangs(self, server):
        with socket.create_connection(server.server_address[:2]) as silent:
            silent.send(b"GET / HTTP")
            with urllib.request.urlopen(f"{server.address}/api/studies", timeout=300) as answer:
                studies = json.load(answer)["study_summaries"]
                assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"
        assert {study["study_name"] for study in studies} == {"tiny", "tiny/base", "tiny/confirm"}

    def test_records_can_be_downloaded_and_what_came_to_nothing_is_not_on_its_front(
        self, server, store
    ):
        study = store.candidates._study_id
        with urllib.request.urlopen(f"{server.address}/api/studies/{study}") as answer:
            document = json.load(answer)
        assert [trial["number"] for trial in document["best_trials"]] == [0]
        trial = document["trials"][0]
        (meta,) = trial["artifacts"]
        path = f"/artifacts/{study}/{trial['trial_id']}/{meta['artifact_id']}"
        with urllib.request.urlopen(server.address + path) as answer:
            assert json.load(answer)["layers"] == LAYERS

    def test_a_port_that_is_taken(self, server, store):
        with pytest.raises(InputError, match=rf"127\.0\.0\.1 and {server.server_port} \("):
            open_server(store, "127.0.0.1", server.server_port)


@pytest.mark.slow
def test_ctrl_c_ends_it_and_is_no_failure(store):
    command = [sys.executable, "-m", "sculpt", "dashboard", "tiny", "--port", "0", "--storage"]
    process = subprocess.Popen(
        [*command, store.config.storage_url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background ignores it, and so would what that starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with process:
        assert process.stderr
        address = process.stderr.readline().split()[1]
        with urllib.request.urlopen(address) as answer:
            assert b"Optuna Dashboard" in answer.read()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=300) == ("", "")
    assert process.returncode == 0


class TestCommand:
    @pytest.fixture(autouse=True)
    def _end_at_once(self, monkeypatch):
        """Ctrl-C as soon as it serves."""

        def interrupted(self: DashboardServer) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(DashboardServer, "serve_forever", interrupted)

    @staticmethod
    def arguments(store: Store) -> list[Any]:
        return ["dashboard", "tiny", "--storage", store.config.storage_url, "--port", 0]

    def test_it_prints_the_study_s_page(self, store, sculpt_command):
        code, out, err = sculpt_command(*self.arguments(store))
        assert (code, out) == (0, "")
        page = f"/dashboard/studies/{store.candidates._study_id} (Ctrl-C ends it)\n"
        assert err.startswith("dashboard: http://127.0.0.1:")
        assert err.endswith(page)
        assert notes(store.candidates)[None]

    def test_it_warns_where_others_can_reach_it(self, store, sculpt_command):
        code, _, err = sculpt_command(*self.arguments(store), "--host", "0.0.0.0")
        assert code == 0
        assert "listening at 0.0.0.0: there is no log-in" in err
        assert "dashboard: http://127.0.0.1:" in err

    def test_a_storage_that_cannot_be_written_is_served_without_notes(
        self, store, sculpt_command, monkeypatch
    ):
        def open_read_only(*arguments: Any) -> Store:
            found = open_store(*arguments)
            found.storage.engine.dispose()  # connections that were opened before may still write

            def refuse_writing(connection: Any, _: Any) -> None:
                connection.execute("PRAGMA query_only = ON")

            event.listen(found.storage.engine, "connect", refuse_writing)
            return found

        monkeypatch.setattr("sculpt.storage.opening.open_store", open_read_only)
        before = written(store)
        code, _, err = sculpt_command(*self.arguments(store))
        assert code == 0
        assert "without new notes and layer plots: study 'tiny' must be writable" in err
        assert "readonly database" in err
        assert "dashboard: http://127.0.0.1:" in err
        assert written(store) == before

    def test_wrong_input_is_one_message(self, store, tmp_path, sculpt_command):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            for arguments, message in [
                (["tiny", "--port", port], "must be an address of this machine and a port"),
                (["tiny", "--port", 0, "--host", "192.0.2.1"], "but got 192.0.2.1 and 0"),
                (["tiny", "--port", 0, "--host", "no such host"], "but got no such host and 0"),
                (["tiny", "--port", 0, "--host", "a..b"], "but got a..b and 0"),
                (["tiny", "--port", 0, "--host", "n" * 300], "n and 0"),
                (["other"], "'other' is not among those kept here (tiny)"),
            ]:
                code, out, err = sculpt_command(
                    "dashboard", *arguments, "--storage", store.config.storage_url
                )
                assert (code, out) == (2, "")
                assert message in err
                assert err.startswith("sculpt: ")
                assert "Traceback" not in err
