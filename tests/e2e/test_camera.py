"""A picture in, a sentence out: bytes are never mangled."""

from __future__ import annotations

import base64

import pytest

from service.demo.scenes import picture
from tests.fakes.model import ok
from tests.rig import message, rig

TOPIC = "cameras/door/snapshot"
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 40
PICTURES = {
    "image/png": picture(),
    "image/jpeg": JPEG,
    "image/gif": b"GIF89a" + bytes(range(256)),
    "image/webp": b"RIFF\x10\0\0\0WEBPVP8 " + bytes(range(256)),
}


async def test_each_kind_of_picture_reaches_the_model_byte_for_byte(any_database):
    async with rig(any_database) as house, house.mqtt("cameras/+/description") as watch:
        for kind, data in PICTURES.items():
            house.model.script(ok(f"a picture of {kind}"))
            await watch.publish(TOPIC, data)
            said = f"a picture of {kind}".encode()
            assert await message(watch) == ("cameras/door/description", said)
            words, image = house.model.calls[-1].messages[-1]["content"]
            assert words["text"].startswith("A snapshot of the camera “door”")
            head, _, encoded = image["image_url"]["url"].partition(",")
            assert head == f"data:{kind};base64"
            assert base64.b64decode(encoded) == data


async def test_a_picture_that_comes_as_base64_text_is_taken_too(database):
    async with rig(database) as house, house.mqtt("cameras/+/description") as watch:
        await watch.publish(TOPIC, base64.encodebytes(JPEG).replace(b"\n", b"") + b"\n")
        await message(watch)
        image = house.model.calls[0].messages[-1]["content"][1]
        url = image["image_url"]["url"]
        assert url == "data:image/jpeg;base64," + base64.b64encode(JPEG).decode()


@pytest.mark.parametrize("payload", [b"door", bytes(range(256)), b"<svg/>"])
async def test_what_is_no_picture_is_told_and_not_asked(database, payload):
    async with rig(database) as house, house.mqtt("cameras/+/description") as watch:
        await watch.publish(TOPIC, payload)
        said = (await message(watch))[1].decode()
        assert said == "No answer: the payload is no JPEG, PNG, GIF or WebP picture."
        (request,) = await house.ended()
        assert (request["state"], request["error"]["code"]) == ("failed", "not_an_image")
        assert house.model.calls == []


async def test_the_last_description_is_retained_for_who_comes_later(database):
    async with rig(database) as house:
        async with house.mqtt("cameras/+/description") as watch:
            house.model.script(ok("A parcel at the door."))
            await watch.publish(TOPIC, JPEG)
            await message(watch)
        async with house.mqtt("cameras/door/description") as late:
            assert await message(late) == ("cameras/door/description", b"A parcel at the door.")


async def test_deleting_a_retained_snapshot_is_no_question(database):
    async with rig(database) as house, house.mqtt("cameras/+/description") as watch:
        await watch.publish(TOPIC, b"")
        (request,) = await house.ended()
        assert (request["state"], request["error"]["code"]) == ("ignored", "empty")
        assert watch.messages.empty()
