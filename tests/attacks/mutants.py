"""Takes each guard out, and looks whether the test that docs/security.md names for it fails.

`make mutants` does it in a copy of the working tree; a guard that no test misses is named, and
ends it with 1. The last line of a guard's row is what the test sees when the guard is gone.
"""

# ruff: noqa: E501
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
        "service/llm/chat_completions.py",
        "    return question.cap if dialect.most is None else min(question.cap, dialect.most)\n",
        "    return None\n",
        "tests/e2e/test_budgets.py::test_an_answer_that_no_flow_bounds_is_bounded_and_a_small_server_is_believed",
    ),
    Mutant(
        "service/answering/request_limits.py",
        '        if self._identity == "username":\n',
        "        if False:\n",
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
        "service/answering/client_shares.py",
        "        return backlog >= self._half and self._open[client] >= self._most\n",
        "        return False\n",
        "tests/attacks/test_fair.py::test_a_flood_takes_its_part_of_the_backlog_and_leaves_the_rest",
    ),
    Mutant(
        "service/answering/request_run.py",
        'Log(f"{claimed.flow}/{claimed.conversation}", ',
        "Log(claimed.id, ",
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
    # What devices and models may not do, what is shown, what holds the process
    Mutant(
        "service/answering/tool_command.py",
        "    if found := fault_in(arguments, tool.parameters):\n",
        "    if found := None:\n",
        "tests/e2e/test_home.py::test_bad_arguments_are_told_and_nothing_is_published",
    ),
    Mutant(
        "service/flows/flow.py",
        "    yield from (place.value for place in walk(flow, ()) if place.mark is Mark.ANSWER)\n",
        "    return\n",
        "tests/pure/test_commands.py::test_nothing_else_is_published_where_a_tool_speaks_or_hears",
    ),
    Mutant(
        "service/flows/flow.py",
        "        lands = landing(str(topic))\n",
        "        lands = str(topic)\n",
        "tests/e2e/test_tool_topics.py::test_a_delayed_reply_is_no_command",
    ),
    Mutant(
        "service/answering/tool_gate.py",
        "                check_way(job.flow, tool, made.message.topic)\n",
        "                pass\n",
        "tests/e2e/test_tool_topics.py::test_another_tool_is_no_way_to_a_guarded_topic",
    ),
    Mutant(
        "service/answering/tool_gate.py",
        'made.tool.confirm or "seal" in made.kept',
        "made.tool.confirm",
        "tests/e2e/test_safe_hands.py::test_a_no_is_a_no_also_when_the_tool_asks_no_more",
    ),
    Mutant(
        "service/answering/tool_answers.py",
        "        if message.id and any(one.wait.heard == message.id for one in heard):\n",
        "        if False:\n",
        "tests/e2e/test_safe_hands.py::test_one_answer_of_a_device_that_emqx_brings_twice_answers_one_call",
    ),
    Mutant(
        "service/answering/tool_answers.py",
        '    return message.received_at + SLACK < int(wait.rule.get("since", 0))\n',
        "    return False\n",
        "tests/e2e/test_safe_hands.py::test_what_was_said_before_a_question_is_no_answer_to_it",
    ),
    Mutant(
        "service/answering/tool_waits.py",
        "char if char.isprintable() else",
        "char if True else",
        "tests/e2e/test_safe_hands.py::test_a_question_shows_all_that_is_done_and_nothing_else",
    ),
    Mutant(
        "service/mqtt/templates.py",
        '    if any(char in value for char in "/+#\\0") or not _encodes(value):\n',
        "    if False:\n",
        "tests/e2e/test_home.py::test_a_topic_level_is_one_harmless_level",
    ),
    Mutant(
        "service/mqtt/templates.py",
        "        if not path and root in self._captured:\n            return self._captured[root]\n",
        "        if not path and root in self._extras:\n            return self._extras[root]\n        if not path and root in self._captured:\n            return self._captured[root]\n",
        "tests/e2e/test_home.py::test_a_model_can_not_pretend_to_be_another_sender",
    ),
    Mutant(
        "service/answering/tool_loop.py",
        "ROUNDS = 6 ",
        "ROUNDS = 60 ",
        "tests/e2e/test_home.py::test_rounds_are_bounded",
    ),
    Mutant(
        "service/flows/flow.py",
        "        return any(matches(allowed, topic) for allowed in self.allow_response_topics)\n",
        "        return True\n",
        "tests/e2e/test_rpc.py::test_a_device_does_not_choose_just_any_topic",
    ),
    Mutant(
        "service/emqx/reply_rule.py",
        'f"WHERE ({signed}) and p.until > now_timestamp()"',
        '"WHERE true"',
        "tests/contract/test_publishing.py::test_a_last_will_is_no_way_past_the_reply_rule",
    ),
    Mutant(
        "service/answering/budget.py",
        "        if usage is None:\n            return\n        await self.budgets.settle(self, usage)\n",
        "        await self.budgets.settle(self, usage or Usage())\n",
        "tests/e2e/test_budgets.py::test_a_process_that_dies_with_a_call_has_spent_it",
    ),
    Mutant(
        "service/supervisor.py",
        "            if child.still >= bound or late:\n",
        "            if late:\n",
        "tests/e2e/test_supervisor.py::test_a_message_that_holds_a_process_up_does_it_twice_and_hurts_no_other",
    ),
    Mutant(
        "service/supervisor.py",
        "            os.kill(child.pid, signal.SIGKILL)\n",
        "            pass\n",
        "tests/e2e/test_supervisor.py::test_sigterm_ends_all_though_the_loop_is_stuck",
    ),
    Mutant(
        "service/bodies.py",
        "    if too_deep(text):\n        raise ValueError",
        "    if False:\n        raise ValueError",
        "tests/pure/test_nesting.py::test_too_deep_is_no_json",
    ),
    Mutant(
        "service/answering/prompt.py",
        '    messages.append({"role": "user", "content": content})\n    return tuple(messages)',
        '    messages.append({"role": "system", "content": content})\n    return tuple(messages)',
        "tests/e2e/test_chat.py::test_a_question_gets_its_reply_on_the_topics_of_the_nodejs_demo",
    ),
    Mutant(
        "service/safe_text.py",
        "        if secret in text:\n",
        "        if False:\n",
        "tests/attacks/test_canaries.py::test_no_canary_is_shown",
    ),
    Mutant(
        "service/web/health.py",
        "            parts = {name: _briefly(part) for name, part in parts.items()}\n",
        "            pass\n",
        "tests/attacks/test_canaries.py::test_what_is_told_without_a_token_is_nobody_s_words",
    ),
    Mutant(
        "service/cli/env_file.py",
        "handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)",
        "handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)",
        "tests/pure/test_env_file.py::test_tokens_are_made_once_and_are_for_the_owner_only",
    ),
    Mutant(
        "service/safe_text.py",
        "char if char.isprintable() else escape(char)",
        "char",
        "tests/pure/test_plain.py::test_what_is_not_shown_stands_as_an_escape",
    ),
    Mutant(
        "service/web/webhook.py",
        'message.flow if message.flow and self._known(message.flow) else ""',
        'message.flow or ""',
        "tests/attacks/test_canaries.py::test_a_flow_that_nobody_knows_is_no_label",
    ),
    Mutant(
        "service/inbox/memory.py",
        "        results.append(tx.run(_forget(), bound).rowcount)\n",
        "        results.append(1)\n",
        "tests/inbox/test_memory.py::test_forget",
    ),
    Mutant(
        "service/emqx/reply_rule.py",
        "contains(sha256(",
        "not contains(sha256(",
        "tests/contract/test_publishing.py::test_the_reply_rule_publishes_what_the_service_signed",
    ),
    Mutant(
        "service/web/guard.py",
        '        await self.note(who, act, detail, "ok")\n',
        "",
        "tests/api/test_access.py::test_acts_are_written_down_by_name",
    ),
    Mutant(
        "service/operations/controls.py",
        "        if flow.name in self.flows or",
        "        if",
        "tests/api/test_acts.py::test_a_paused_flow_waits_and_goes_on",
    ),
    Mutant(
        "service/settings.py",
        '        return Fault(name, "holds no token, only commas or spaces", hint=HOW_TO_SET)\n',
        "        return None\n",
        "tests/pure/test_settings.py::test_a_token_of_commas_is_refused",
    ),
    Mutant(
        "docker-compose.yml",
        "  read_only: true\n",
        "  read_only: false\n",
        "tests/packaging/test_docker.py::test_containers_may_do_little_and_take_a_bounded_part",
    ),
    Mutant(
        "emqx-gpt.service",
        "NoNewPrivileges=yes\n",
        "",
        "tests/packaging/test_unit.py::test_the_unit_is_hardened",
    ),
    Mutant(
        "service/emqx/message.py",
        "    if not isinstance(fields, dict):\n        raise BadRequest(",
        "    if False:\n        raise BadRequest(",
        "tests/fuzz/test_storm.py::test_bad_webhooks_do_no_harm",
    ),
    Mutant(
        "service/llm/chat_completions.py",
        'only_text(choice.get("finish_reason")) or gathered.finish',
        'choice.get("finish_reason") or gathered.finish',
        "tests/fuzz/test_answers.py::test_bad_answers_do_no_harm",
    ),
    Mutant(
        ".ci/audit",
        "  exit 2\n",
        "  exit 0\n",
        "tests/packaging/test_dist.py::test_an_audit_that_could_not_ask_says_so",
    ),
    Mutant(
        "service/flows/regex.py",
        "            self._compiled = re2.compile(text, options)\n",
        "            self._compiled = re.compile(pattern, re.S | re.I)  # type: ignore\n",
        "tests/pure/test_growth.py::test_twice_the_text_takes_twice_the_time",
    ),
    # MCP servers
    Mutant(
        "service/mcp/offer.py",
        "            if _destructive(tool) and server.confirm is None:\n",
        "            if False:\n",
        "tests/mcp/test_servers.py::test_tools_are_offered_by_what_their_server_says_of_them",
    ),
    Mutant(
        "service/answering/remote.py",
        "        at_most_once=remote.at_most_once,\n",
        "",
        "tests/mcp/test_requests.py::test_a_dose_that_a_crash_interrupted_is_not_given_twice",
    ),
    Mutant(
        "service/mcp/servers.py",
        "                if trouble.maybe and tool.at_most_once:\n",
        "                if False:\n",
        "tests/mcp/test_requests.py::test_a_dose_whose_answer_is_lost_is_not_given_twice",
    ),
    Mutant(
        "service/mcp/result_text.py",
        "    if len(data) <= most:\n",
        "    if True:\n",
        "tests/mcp/test_servers.py::test_results_are_bounded_and_only_text",
    ),
    Mutant(
        "service/mcp/server_http.py",
        '        self._most = None if kind.startswith("text/event-stream") else MOST\n',
        "        self._most = None\n",
        "tests/mcp/test_servers.py::test_results_are_bounded_and_only_text",
    ),
    Mutant(
        "service/mcp/running_service.py",
        "        if re.fullmatch(FLOW_NAME, flow) is None:",
        "        if False:",
        "tests/mcp/test_serving.py::test_what_goes_wrong_is_told_as_the_tools_error",
    ),
    Mutant(
        "service/mcp/offered_flows.py",
        "            if not any(matches):\n",
        "            if False:\n",
        "tests/mcp/test_serving.py::test_flows_are_tools_over_http_for_who_has_the_token",
    ),
    Mutant(
        "service/inbox/codec.py",
        "        return orjson.dumps(value)\n    except TypeError:\n        return json.dumps",
        "        return orjson.dumps(value)\n    except KeyError:\n        return json.dumps",
        "tests/attacks/test_canaries.py::test_names_that_no_database_takes_are_stored_and_answered",
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
