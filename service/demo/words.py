"""The demo's words in two languages: English ones stand where they are said, Chinese ones here.
What is not here is shown in English; a test looks for that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from service.demo.scenes import CHINESE_SCENES, SCENES, Scene

LANGUAGES = ("en", "zh")
CHINESE = {
    # scenes
    "chat, with a memory for each user": "聊天，每个用户有自己的记忆",
    "a sensor over its limit becomes a spoken alert": "传感器超限，变成一句语音告警",
    "many messages, one question: a cold store judged by its last minute":
        "多条消息，一次提问：按最近一分钟的读数判断冷库",
    "by the clock: what the cold store did at night": "定时：冷库昨晚怎么样",
    "natural language becomes commands to devices": "自然语言变成设备命令",
    "safe hands: wait for the device, ask first, look whether it worked":
        "稳妥执行：等设备应答，先征求同意，再看是否生效",
    "a smart speaker with a wake word": "带唤醒词的智能音箱",
    "free text in, clean fields out": "随意的文本进，规整的字段出",
    "a camera's snapshot described": "描述摄像头的快照",
    "a long answer, piece by piece": "长回答，边生成边发送",
    "request and response, as JSON": "请求与响应，JSON 格式",
    "your flow": "你的流程",
    "The lamp answers, over MQTT 5:": "灯会应答（MQTT 5）：",
    "You are asked first, and say yes over MQTT 5:": "先征求你的同意，你通过 MQTT 5 回答“是”：",
    "The same over MQTT 3.1.1:": "同样的过程，用 MQTT 3.1.1：",
    "This heater does not follow, and so you are told:": "这台暖气没有照做，于是如实告诉你：",
    # the play
    "It asks by the clock ({every}, {zone}), which is moved on:":
        "它按时钟提问（{every}，{zone}），这里把时钟拨快：",
    "No message was found that this flow would answer: its where, require or reply is more than "
    "the demo can guess. Publish one of your own below.":
        "没有找到这个流程会回答的消息：它的 where、require 或 reply 超出了演示能猜到的范围。"
        "请按下面的说明自己发布一条。",
    "{topic} ▶ nothing came in {seconds} s": "{topic} ▶ {seconds} 秒内没有收到任何消息",
    "(the model called none of its tools)": "（模型没有调用任何工具）",
    # what passes
    "(no flow listens here)": "（没有流程监听此主题）",
    "no answer from {name}: {why}": "{name} 不回答：{why}",
    "its condition (where) is not met": "不满足它的条件（where）",
    "an empty message is none": "空消息不算消息",
    "what it waits for (require) was not said": "没有说出它等待的内容（require）",
    "nothing is left of it (strip)": "去掉之后什么也不剩（strip）",
    "(the same, in one piece: {count} characters)": "（同样的内容，一次发完：{count} 个字符）",
    "a PNG picture, ": "PNG 图片，",
    "a JPEG picture, ": "JPEG 图片，",
    "({kind}{count} bytes)": "（{kind}{count} 字节）",
    "(empty)": "（空）",
    # before and after
    "page": "页面",
    "broker": "Broker",
    "service": "服务",
    "model": "模型",
    "flows": "流程",
    "Asking {names} for a first answer …": "先向 {names} 要一个回答……",
    "offline, and plays {kind}: its refusals, the shapes of its answers and errors":
        "离线，扮演 {kind}：它的拒绝方式，以及回答和错误的格式",
    "offline: fixed rules, no network. It reads English, German and Chinese, calls your tools and "
    "fills your schemas by their names. For a real one set OPENAI_API_KEY, or OPENAI_BASE_URL for "
    "a server that needs no key.":
        "离线：固定规则，不联网。它能读中文、英文和德文，会按名称调用你的工具、填写你的 schema。"
        "要用真实模型，请设置 OPENAI_API_KEY；不需要密钥的服务器则设置 OPENAI_BASE_URL。",
    "{url}, asked first: it answers": "{url}，已先问过：它会回答",
    "no flows.toml here, so those that come along: {names}":
        "这里没有 flows.toml，用自带的：{names}",
    "Port {port} ({name}) is taken, so it is {chosen} this time.":
        "端口 {port}（{name}）已被占用，这次改用 {chosen}。",
    "Every device in the network can reach the broker, and it lets everybody in. The service asks "
    "for tokens; they are made for this run and stand in demo.env.":
        "网络中的任何设备都能连上这个 Broker，它不做认证。服务本身要求令牌；"
        "令牌只为这次运行生成，写在 demo.env 里。",
    "Answers that did not come: {names}": "没有收到的回答：{names}",
    "Every answer came.": "所有回答都收到了。",
    "Stopping …": "正在停止……",
    "Join in: of two lines, run the first in one terminal, the second in another.":
        "一起来试：mosquitto_sub 在一个终端运行，mosquitto_pub 在另一个终端运行。",
    "Or with MQTTX: host mqtt://{host}, port {port}, the rest as it is.":
        "也可以用 MQTTX：服务器地址 mqtt://{host}，端口 {port}，其余保持默认。",
    "What you publish and what comes back is shown here too.":
        "你发布的和收到的消息也会显示在这里。",
    "A tool that asks waits for your yes: publish it too. The lines with -V 5 are the same over "
    "MQTT 5, and show where the question wants its answer.":
        "会征求同意的工具等你说“是”：也请把它发布出去。带 -V 5 的命令是同样的操作，走 MQTT 5，"
        "并显示问题希望在哪里得到回答。",
    "The other commands work against this demo, in another terminal:":
        "其他命令也可以用于这个演示，请在另一个终端运行：",
    "Write a flows.toml of your own here: {command} init.":
        "在这里写你自己的 flows.toml：{command} init。",
    "Save {path} with a change, and it is live at once.": "修改并保存 {path}，立即生效。",
    "Ctrl-C ends the demo.": "按 Ctrl-C 结束演示。",
    "publish to {topics}": "发布到 {topics}",
    " or ": " 或 ",
    "asks by the clock ({every})": "按时钟提问（{every}）",
    ", listen on {topic}": "，订阅 {topic}",
    # when the file changes
    "{path} is mended: the flows are as before.": "{path} 已改正：流程和之前一样。",
    "{path} is not taken, the flows from before stay:": "{path} 没有采用，仍用之前的流程：",
    "{path} has changed and is live.": "{path} 已更改并生效。",
    "gone: {names}": "已删除：{names}",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Words:
    """What is said in a language, and its scenes."""

    language: str = "en"
    scenes: Mapping[str, Scene] = field(default_factory=lambda: SCENES)

    def __call__(self, text: str, **values: object) -> str:
        """`text` in this language, with its values."""
        said = CHINESE.get(text, text) if self.language == "zh" else text
        return said.format(**values) if values else said


ENGLISH = Words()


def words_of(language: str) -> Words:
    """Those of "en" or "zh"."""
    return Words("zh", CHINESE_SCENES) if language == "zh" else ENGLISH


def spoken(environ: Mapping[str, str]) -> str:
    """Which of LANGUAGES the terminal's user reads, as POSIX has it."""
    names = ("LC_ALL", "LC_MESSAGES", "LANG")
    locale = next((environ[name] for name in names if environ.get(name)), "")
    return "zh" if locale.lower().startswith("zh") else "en"
