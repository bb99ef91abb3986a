"""The offline model calls tools: whatever they are named, as their schemas want it."""

import json
from collections.abc import AsyncIterator
from typing import Any

import jsonschema_rs
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from service.demo.offline_model.model import OfflineModel
from service.demo.offline_model.tool_choice import Tool, choose

ROOM = {"enum": ["kitchen", "bedroom"]}


def tool(name: str, properties: dict[str, Any], *required: str, text: str = "") -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": [*required],
        "additionalProperties": False,
    }
    function = {"name": name, "description": text, "parameters": parameters}
    return {"type": "function", "function": function}


PERCENT = {"type": "integer", "minimum": 0, "maximum": 100}
BOOL = {"type": "boolean"}
HOME = [
    tool("set_light", {"room": ROOM, "on": BOOL, "brightness": PERCENT}, "room", "on"),
    tool(
        "set_climate",
        {
            "room": ROOM,
            "temperature": {"type": "number", "minimum": 16, "maximum": 30},
            "mode": {"type": "string", "enum": ["heat", "cool", "auto", "off"]},
        },
        "room", "temperature",
    ),
    tool(
        "set_speaker",
        {
            "room": ROOM,
            "action": {"enum": ["play", "pause", "stop", "volume"]},
            "media": {"type": "string"},
            "volume": PERCENT,
        },
        "room", "action",
    ),
    tool("get_temperature", {"room": ROOM}, "room"),
    tool("read_light", {"room": ROOM}, "room"),
]  # fmt: skip


def chosen(
    text: str, offered: list[dict[str, Any]] = HOME, before: str = ""
) -> list[tuple[str, dict[str, Any]]]:
    """What it would call; each call's arguments valid for its tool."""
    functions = [each["function"] for each in offered]
    tools = [Tool(each["name"], each["description"], each["parameters"]) for each in functions]
    calls = choose(text, tools, before).calls
    for call in calls:
        schema = next(each.parameters for each in tools if each.name == call.name)
        jsonschema_rs.validate(schema, call.arguments)
    return [(call.name, call.arguments) for call in calls]


def light(room: str, on: bool, **more: Any) -> tuple[str, dict[str, Any]]:
    return "set_light", {"room": room, "on": on, **more}


def climate(room: str, temperature: float, **more: Any) -> tuple[str, dict[str, Any]]:
    return "set_climate", {"room": room, "temperature": temperature, **more}


def speaker(room: str, action: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return "set_speaker", {"room": room, "action": action, **more}


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("turn on the kitchen light", [light("kitchen", True)]),
        ("Please turn off the kitchen light.", [light("kitchen", False)]),
        ("switch off the bedroom lamp", [light("bedroom", False)]),
        ("Could you turn the kitchen light on?", [light("kitchen", True)]),
        ("kitchen light off", [light("kitchen", False)]),
        ("set brightness to 40", [light("kitchen", True, brightness=40)]),
        ("set the bedroom lamp to 40%", [light("bedroom", True, brightness=40)]),
        ("set the bedroom lamp to 400%", [light("bedroom", True, brightness=100)]),
        ("Light up the kitchen.", [light("kitchen", True)]),
        ("dim the bedroom lamp", [light("bedroom", True, brightness=20)]),
        ("打开厨房的灯", [light("kitchen", True)]),
        ("把厨房的灯打开", [light("kitchen", True)]),
        ("关掉卧室灯", [light("bedroom", False)]),
        ("请把卧室灯的亮度调到40", [light("bedroom", True, brightness=40)]),
        ("turn off all the lights", [light("kitchen", False), light("bedroom", False)]),
        ("set the air conditioner in the bedroom to 22 degrees", [climate("bedroom", 22)]),
        ("make it warmer in the kitchen", [climate("kitchen", 24, mode="heat")]),
        ("turn off the air conditioner in the bedroom", [climate("bedroom", 21, mode="off")]),
        ("把卧室空调调到22度", [climate("bedroom", 22)]),
        ("play jazz in the kitchen", [speaker("kitchen", "play", media="jazz")]),
        ("volume 30", [speaker("kitchen", "volume", volume=30)]),
        ("在厨房播放爵士乐", [speaker("kitchen", "play", media="爵士乐")]),
        (
            "play rock and roll in the kitchen at volume 30",
            [speaker("kitchen", "play", media="rock and roll", volume=30)],
        ),
        (
            "turn on the light in the kitchen and the bedroom",
            [light("kitchen", True), light("bedroom", True)],
        ),
        (
            "turn on the kitchen and bedroom lights",
            [light("kitchen", True), light("bedroom", True)],
        ),
        ("打开厨房和卧室的灯", [light("kitchen", True), light("bedroom", True)]),
        (
            "turn off the kitchen light, set the air conditioner in the bedroom to 22.5 degrees "
            "and play jazz",
            [
                light("kitchen", False),
                climate("bedroom", 22.5),
                speaker("bedroom", "play", media="jazz"),
            ],
        ),
        (
            "把卧室的空调调到22度，然后打开厨房的灯",
            [climate("bedroom", 22), light("kitchen", True)],
        ),
        ("What is the temperature in the kitchen?", [("get_temperature", {"room": "kitchen"})]),
        ("How warm is it in the bedroom?", [("get_temperature", {"room": "bedroom"})]),
        ("is the bedroom light on?", [("read_light", {"room": "bedroom"})]),
        ("厨房现在几度？", [("get_temperature", {"room": "kitchen"})]),
        ("卧室的灯开着吗？", [("read_light", {"room": "bedroom"})]),
        ("don't turn on the kitchen light", []),
        ("I like the kitchen light", []),
        ("turn on the garage light", []),
        ("turn it off", []),
        ("Tell me a joke", []),
        ("Schalte das Licht in der Küche ein.", [light("kitchen", True)]),
        ("Mach bitte das Küchenlicht aus", [light("kitchen", False)]),
        (
            "Kannst du die Lampe im Schlafzimmer auf 40 % dimmen?",
            [light("bedroom", True, brightness=40)],
        ),
        (
            "Schalte das Licht in der Küche und im Schlafzimmer aus",
            [light("kitchen", False), light("bedroom", False)],
        ),
        (
            "turn the kitchen and bedroom lights off",
            [light("kitchen", False), light("bedroom", False)],
        ),
        (
            "Stell die Klimaanlage im Schlafzimmer auf 21,5 Grad und spiele Jazz in der Küche",
            [climate("bedroom", 21.5), speaker("kitchen", "play", media="Jazz")],
        ),
        ("Wie warm ist es im Schlafzimmer?", [("get_temperature", {"room": "bedroom"})]),
        ("Mach das Licht in der Garage an", []),
        ("Schalte das Licht in der Küche nicht ein", []),
        ("Guten Morgen, wie geht es dir?", []),
        ("我叫小明", []),
    ],
)  # fmt: skip
def test_commands(text: str, calls: list[tuple[str, dict[str, Any]]]) -> None:
    assert chosen(text) == calls


def test_the_room_and_the_device_may_come_from_before() -> None:
    before = "turn on the kitchen light\nDone\nturn on the bedroom light\nDone"
    assert chosen("set brightness to 40", before=before) == [light("bedroom", True, brightness=40)]
    assert chosen("turn it off", before=before) == [light("bedroom", False)]


def test_only_what_is_offered_is_called() -> None:
    assert chosen("turn on the kitchen light", HOME[1:3]) == []
    assert chosen("is the kitchen light on?", HOME[:3]) == []


def test_other_names_and_shapes_are_filled_too() -> None:
    generic = tool(
        "control_device",
        {
            "device": {"enum": ["light", "air_conditioner", "speaker"]},
            "room": {"type": "string"},
            "state": {"enum": ["ON", "OFF"]},
            "value": {"type": "number"},
        },
        "device", "room", "state",
    )  # fmt: skip
    off = {"device": "air_conditioner", "room": "bedroom", "state": "OFF"}
    assert chosen("关掉卧室的空调", [generic]) == [("control_device", off)]
    chinese = tool("deng", {"房间": {"enum": ["厨房", "卧室"]}, "开": {"type": "boolean"}},
                   "房间", "开", text="开关灯")  # fmt: skip
    assert chosen("turn on the bedroom light", [chinese]) == [
        ("deng", {"房间": "卧室", "开": True})
    ]
    nested = tool(
        "setThermostat",
        {
            "room": {"enum": ["living_room", "bedroom"]},
            "settings": {
                "type": "object",
                "properties": {"targetTemperature": {"type": "number"}, "power": BOOL},
                "required": ["targetTemperature"],
            },
        },
        "room", "settings",
    )  # fmt: skip
    wanted = {"room": "living_room", "settings": {"targetTemperature": 22.5}}
    assert chosen("set the living room to 22.5 degrees", [nested]) == [("setThermostat", wanted)]


OTHERS = [
    tool("set_light", {"room": ROOM, "on": BOOL, "color": {"enum": ["red", "blue", "green"]}},
         "room", "on"),
    tool("open_blinds", {"room": {"enum": ["living_room", "bedroom"]}, "position": PERCENT},
         "room", "position", text="Move the blinds of a room"),
    tool("water_plants", {"zone": {"enum": ["roses", "lawn"]}, "minutes": PERCENT},
         "zone", "minutes", text="Water a zone of the garden"),
    tool("lock_door", {"door": {"enum": ["front", "back"]}, "locked": BOOL}, "door", "locked",
         text="Lock or unlock a door"),
    tool("set_valve", {"valve": {"enum": ["north", "south"]}, "open": BOOL}, "valve", "open"),
    tool("get_weather", {"city": {"type": "string"}}, "city", text="Look up the weather of a city"),
    tool("send_message", {"to": {"type": "string"}, "text": {"type": "string"}}, "to", "text"),
    tool("tuer_steuern", {"tuer": {"enum": ["haustuer", "garage"]},
                          "aktion": {"enum": ["oeffnen", "schliessen"]}}, "tuer", "aktion",
         text="Tür öffnen oder schließen"),
    tool("控制风扇", {"位置": {"enum": ["客厅", "卧室"]}, "档位": {"type": "integer"}},
         "位置", "档位", text="调节风扇的档位"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("Turn the bedroom light red", "set_light", ["bedroom", True, "red"]),
        ("Mach das Licht im Schlafzimmer blau", "set_light", ["bedroom", True, "blue"]),
        ("把厨房的灯调成绿色", "set_light", ["kitchen", True, "green"]),
        ("Öffne die Jalousien im Wohnzimmer auf 50 %", "open_blinds", ["living_room", 50]),
        ("把客厅的窗帘打开到50", "open_blinds", ["living_room", 50]),
        ("Water the roses for 10 minutes", "water_plants", ["roses", 10]),
        ("Bewässere den Rasen 15 Minuten lang", "water_plants", ["lawn", 15]),
        ("lock the front door", "lock_door", ["front", True]),
        ("unlock the back door", "lock_door", ["back", False]),
        ("锁上前门", "lock_door", ["front", True]),
        ("set valve north open", "set_valve", ["north", True]),
        ("close the south valve", "set_valve", ["south", False]),
        ("What is the weather in Berlin?", "get_weather", ["Berlin"]),
        ("Wie ist das Wetter in Hamburg?", "get_weather", ["Hamburg"]),
        ("北京天气怎么样？", "get_weather", ["北京"]),
        ('Send a message to Bob: "dinner is ready"', "send_message", ["Bob", "dinner is ready"]),
        ("Schließ die Haustür", "tuer_steuern", ["haustuer", "schliessen"]),
        ("把客厅风扇调到2档", "控制风扇", ["客厅", 2]),
    ],
)
def test_tools_of_ones_own_in_three_languages(text: str, name: str, arguments: list[Any]) -> None:
    assert [(called, list(given.values())) for called, given in chosen(text, OTHERS)] == [
        (name, arguments)
    ]


@pytest_asyncio.fixture
async def client() -> AsyncIterator[AsyncOpenAI]:
    async with (
        OfflineModel(delay=0) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client,
    ):
        yield client


async def test_a_round_trip_with_parallel_calls(client: AsyncOpenAI) -> None:
    ask: Any = {"model": "m", "tools": HOME}
    messages: list[Any] = [
        {"role": "user", "content": "turn on the kitchen light and the bedroom light"}
    ]
    first = await client.chat.completions.create(messages=messages, **ask)
    assert first.choices[0].finish_reason == "tool_calls"
    message = first.choices[0].message
    assert message.content is None
    calls = message.tool_calls or []
    assert len({call.id for call in calls}) == 2
    messages.append(message.model_dump(exclude_none=True))
    for call, result in zip(calls, ["sent", "error: no such lamp"], strict=True):
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    last = await client.chat.completions.create(messages=messages, **ask)
    assert last.choices[0].finish_reason == "stop"
    assert last.choices[0].message.content == (
        "(offline model) Done: kitchen light on (sent). "
        "That did not work: bedroom light on (error: no such lamp)."
    )


async def test_a_reading_is_told(client: AsyncOpenAI) -> None:
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "get_temperature", "arguments": '{"room": "kitchen"}'},
    }
    for text, expected in [
        ("what is the temperature in the kitchen?", "I looked it up: kitchen temperature: 21.5."),
        ("Wie warm ist es in der Küche?", "Nachgesehen: kitchen temperature: 21.5."),
        ("厨房现在几度？", "查到：kitchen temperature: 21.5。"),
    ]:
        messages: list[Any] = [
            {"role": "user", "content": text},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "21.5"},
        ]
        answer = await client.chat.completions.create(model="m", messages=messages, tools=HOME)
        assert expected in answer.choices[0].message.content


async def test_tool_calls_are_streamed_in_pieces(client: AsyncOpenAI) -> None:
    messages: Any = [{"role": "user", "content": "turn on the kitchen light, set brightness to 40"}]
    tools: Any = HOME
    async with client.chat.completions.stream(model="m", messages=messages, tools=tools) as stream:
        answer = await stream.get_final_completion()
    calls = answer.choices[0].message.tool_calls or []
    assert [json.loads(call.function.arguments) for call in calls] == [
        {"room": "kitchen", "on": True},
        {"room": "kitchen", "on": True, "brightness": 40},
    ]
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_tool_choice_and_unreachable_rooms(client: AsyncOpenAI) -> None:
    async def ask(text: str, choice: Any) -> Any:
        messages: Any = [{"role": "user", "content": text}]
        tools: Any = HOME
        answer = await client.chat.completions.create(
            model="m", messages=messages, tools=tools, tool_choice=choice
        )
        return answer.choices[0].message

    assert (await ask("turn on the kitchen light", "none")).tool_calls is None
    assert (await ask("hello", "required")).tool_calls[0].function.name == "set_light"
    named = {"type": "function", "function": {"name": "get_temperature"}}
    assert (await ask("bedroom", named)).tool_calls[0].function.arguments == '{"room":"bedroom"}'
    assert (await ask("turn on the garage light", "auto")).content == (
        "(offline model) I can't reach that in the garage; I can in: kitchen, bedroom."
    )


async def test_an_unanswered_call_is_refused(client: AsyncOpenAI) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages: Any = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "user", "content": "well?"},
    ]
    with pytest.raises(Exception, match="did not have response messages: c1"):
        await client.chat.completions.create(model="m", messages=messages)
