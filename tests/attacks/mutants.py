"""Takes each guard out, and looks whether the test that docs/security.md names for it fails.

`make mutants` does it in a copy of the working tree; a guard that no test misses is named, and
ends it with 1. The last line of a guard's row is what the test sees when the guard is gone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Mutant:
    """In `file`, `old` becomes `new`; then `test` must fail."""

    file: str
    old: str
    new: str
    test: str


PORT, SIZES = "tests/attacks/test_port.py", "tests/attacks/test_sizes.py"
AUTH = "service/web/auth.py"
BOUNDED, BUDGET = "service/web/bounded.py", "service/answering/budget.py"
MUTANTS = (
    # Money
    Mutant(
        BUDGET,
        "        if self._left < amount:\n            return False\n",
        "",
        "tests/e2e/test_budgets.py::test_the_installation_s_budget_is_named_in_the_log_and_opens_at_midnight",
    ),
    Mutant(
        BUDGET,
        "            if over is not None:\n",
        "            if False:\n",
        "tests/e2e/test_budgets.py::test_200_at_once_in_two_processes_never_overspend",
    ),
    Mutant(
        BUDGET,
        "        if usage is None:\n            return\n",
        "        usage = usage or Usage()\n",
        "tests/e2e/test_budgets.py::test_what_failed_unheard_counts_and_what_was_refused_does_not",
    ),
    Mutant(
        "service/llm/chat.py",
        "    return question.cap if dialect.most is None else min(question.cap, dialect.most)\n",
        "    return None\n",
        "tests/e2e/test_budgets.py::test_an_answer_that_no_flow_bounds_is_bounded_and_a_small_server_is_believed",
    ),
    Mutant(
        "service/answering/limits.py",
        'if self._identity == "username" else message.clientid',
        "if False else message.clientid",
        "tests/e2e/test_budgets.py::test_a_client_s_limit_counts_the_name_that_is_trusted",
    ),
    # Sizes
    Mutant(
        "service/bodies.py",
        "        if most is not None and size > most:\n",
        "        if False:\n",
        f"{SIZES}::test_what_answers_at_emqx_url_is_bounded",
    ),
    Mutant(
        "service/llm/transport.py",
        "            if unended > self._line:\n",
        "            if False:\n",
        f"{SIZES}::test_an_answer_without_end_ends[stream_line]",
    ),
    Mutant(
        "service/llm/tool_calls.py",
        "        if len(self._calls) > MOST_CALLS:\n",
        "        if False:\n",
        f"{SIZES}::test_an_answer_without_end_ends[tool_calls]",
    ),
    Mutant(
        "service/llm/client.py",
        "stream=True, follow_redirects=False",
        "stream=True, follow_redirects=True",
        f"{SIZES}::test_an_answer_without_end_ends[redirect]",
    ),
    Mutant(
        "service/answering/prompt.py",
        "    if size > flow.max_input:\n",
        "    if False:\n",
        "tests/e2e/test_sizes.py::test_a_message_over_max_input_is_told_and_not_asked",
    ),
    Mutant(
        "service/answering/prompt.py",
        "    if sum(sizes[-count:]) > MEMORY:\n",
        "    if False:\n",
        "tests/e2e/test_sizes.py::test_a_conversation_remembers_no_more_than_256_kb",
    ),
    Mutant(
        "service/inbox/inbox.py",
        "        if size <= most:\n            return 0\n",
        "        return 0\n",
        "tests/e2e/test_sizes.py::test_what_all_remember_is_bounded_and_the_oldest_goes_first",
    ),
    Mutant(
        "service/answering/worker.py",
        "        free = min(free, 1 + room // self._large)\n",
        "",
        "tests/e2e/test_sizes.py::test_large_requests_wait_in_the_inbox_and_not_in_memory",
    ),
    # The port
    Mutant(
        BOUNDED,
        "            if self._head > self._bounds.head:\n",
        "            if False:\n",
        f"{PORT}::test_each_bound_says_what_it_is",
    ),
    Mutant(
        BOUNDED,
        "        if len(self.url) + len(url) > most:\n",
        "        if False:\n",
        f"{PORT}::test_each_bound_says_what_it_is",
    ),
    Mutant(
        BOUNDED,
        "        if said > 1 or (old and length < 0):\n",
        "        if False:\n",
        f"{PORT}::test_what_two_readers_could_read_in_two_ways_is_refused",
    ),
    Mutant(
        BOUNDED,
        '            raise Refused("no trailers are taken")\n',
        "            pass\n",
        f"{PORT}::test_what_two_readers_could_read_in_two_ways_is_refused",
    ),
    Mutant(
        BOUNDED,
        "        if self.idle():\n            self._say_last_word()\n\n    def _give_up_body",
        "        self._say_last_word()\n\n    def _give_up_body",
        f"{PORT}::test_a_refusal_waits_for_the_answers_before_it",
    ),
    Mutant(
        "service/web/origin.py",
        "    if not same_origin(headers, names):\n",
        "    if False:\n",
        "tests/e2e/test_own_tokens.py::test_pages_of_other_sites_get_nothing",
    ),
    # Keys
    Mutant(
        "service/mqtt/templates.py",
        "        whole = json.dumps(values).encode()\n        return f",
        "        whole = json.dumps(values).encode()\n        return text or f",
        "tests/pure/test_flow.py::test_two_lists_of_values_never_make_one_key",
    ),
    Mutant(
        "service/flows/flow.py",
        '    return f"#={value}" if _MARKED.match(value) else value\n',
        "    return value\n",
        "tests/pure/test_flow.py::test_what_a_device_chose_never_looks_like_a_key_that_it_did_not",
    ),
    Mutant(
        "service/web/ask.py",
        "        if not same:\n",
        "        if False:\n",
        "tests/e2e/test_ask.py::test_the_same_key_with_another_question_is_refused",
    ),
    # One and all
    Mutant(
        "service/answering/intake.py",
        "turn=self._turns.next(client, now)",
        "turn=now",
        "tests/attacks/test_fair.py::test_who_asks_once_is_not_kept_waiting_by_a_flood",
    ),
    Mutant(
        "service/answering/shares.py",
        "        return backlog >= self._half and self._open[client] >= self._most\n",
        "        return False\n",
        "tests/attacks/test_fair.py::test_a_flood_takes_its_part_of_the_backlog_and_leaves_the_rest",
    ),
    Mutant(
        "service/answering/life.py",
        'who = f"{claimed.flow}/{claimed.conversation}"',
        "who = claimed.id",
        "tests/e2e/test_fallback.py::test_a_conversation_that_gets_no_answer_closes_the_model_for_no_other",
    ),
    Mutant(
        "service/llm/pace.py",
        "        if bucket is not None and not bucket.refill and now - bucket.at >= STALE:\n",
        "        if False:\n",
        "tests/llm/test_pace.py::test_none_left_and_no_word_of_more_is_believed_for_a_minute",
    ),
    # The console and the API
    Mutant(
        AUTH,
        "        if given is None or not hmac.compare_digest(",
        "        if False and not hmac.compare_digest(",
        "tests/api/test_access.py::test_an_act_by_cookie_needs_its_word",
    ),
    Mutant(
        AUTH,
        "if request.method not in SAFE and not who.may_act:",
        "if False:",
        "tests/api/test_access.py::test_a_viewer_looks_and_changes_nothing",
    ),
    Mutant(
        AUTH,
        "            self._logins.failed(address(request))\n",
        "",
        "tests/api/test_access.py::test_attempts_are_limited",
    ),
    Mutant(
        AUTH,
        "            except BadSignature:\n                continue\n",
        "            except BadSignature:\n                nonce = b'forged'\n",
        "tests/api/test_access.py::test_a_forged_session_is_none",
    ),
    Mutant(
        "service/web/console/render.py",
        '{"html": False, "breaks": True}',
        '{"html": True, "breaks": True}',
        "tests/console/test_browser.py::test_what_devices_and_models_write_is_only_text",
    ),
    Mutant(
        "service/web/console/render.py",
        "autoescape=True",
        "autoescape=False",
        "tests/console/test_browser.py::test_what_devices_and_models_write_is_only_text",
    ),
    Mutant(
        "service/web/console/pages.py",
        "            except Unauthorized:\n",
        "            except Unauthorized:\n                return await page(request)\n",
        "tests/console/test_pages.py::test_nobody_sees_a_page_without_a_token",
    ),
    Mutant(
        BOUNDED,
        "            running.disconnected = True\n",
        "            pass\n",
        f"{PORT}::test_who_goes_away_leaves_no_open_page_behind",
    ),
)


def survives(mutant: Mutant, copy: Path) -> bool:
    """Whether the test passes without the guard."""
    file = copy / mutant.file
    text = file.read_text("utf-8")
    if mutant.old not in text:
        sys.exit(f"{mutant.file} has no {mutant.old!r} any more: bring the mutant up to date")
    file.write_text(text.replace(mutant.old, mutant.new, 1), "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", mutant.test]
    try:
        ended = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=300)
    finally:
        file.write_text(text, "utf-8")
    if ended.returncode not in (0, 1):
        sys.exit(f"{mutant.test} could not be run:\n{ended.stdout[-2000:]}{ended.stderr[-500:]}")
    return ended.returncode == 0


def main(mutants: Sequence[Mutant] = MUTANTS) -> int:
    with tempfile.TemporaryDirectory(prefix="emqx-gpt-mutants-") as folder:
        copy = Path(folder) / "tree"
        left_out = shutil.ignore_patterns(".venv*", ".git", "__pycache__", ".*_cache", "*.egg-info")
        shutil.copytree(ROOT, copy, ignore=left_out)
        alive = 0
        for mutant in mutants:
            lives = survives(mutant, copy)
            alive += lives
            print("NOT NOTICED" if lives else "noticed", mutant.file, mutant.test, flush=True)
    print(f"{len(mutants)} guards taken out, {alive} not noticed")
    return 1 if alive else 0


if __name__ == "__main__":
    wanted = sys.argv[1:]  # parts of the names of files or tests; none: all
    chosen = [one for one in MUTANTS if any(part in one.file + one.test for part in wanted)]
    sys.exit(main(chosen if wanted else MUTANTS))
