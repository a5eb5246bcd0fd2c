"""Captions to agents, objects, movement and category."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.curation.curated import Curated
from dsr.curation.lexicon import english
from dsr.curation.rules import CATEGORIES, curate
from dsr.params import Curation
from dsr.simulator.bodies import AGENTS, OBJECTS, Kind


def curated(caption: str, max_nouns: int = 12) -> Curated:
    return curate([caption], Curation(max_nouns=max_nouns))[0]


NAMED = [
    ("Pedestrians walk across a square", ["pedestrian"], []),
    ("A man walks his dog past a parked car.", ["man", "dog", "car"], []),
    ("Two women in red shirts are riding bikes down the street", ["woman", "bike"], []),
    ("A batter swings the bat and hits the ball.", ["batter"], ["bat", "ball"]),
    ("A group of people stands in front of a brick building, watching a parade.", ["people"], ["building"]),
    ("A crowd cheers as the team runs onto the field", ["crowd", "team"], []),
    ("A flock of birds flies over the sea", ["bird"], []),
    ("The driver of the bus waves at the passengers", ["driver", "bus", "passenger"], []),
    ("A train leaves the station and crosses a bridge", ["train"], []),
    ("Cars race around the track. A race car overtakes a truck.", ["car", "race car", "truck"], []),
    ("A car parks. Cars park.", ["car"], []),
    ("Kitchen chairs fall onto a wooden table", [], ["chair", "table"]),
    ("A cat's tail swings", [], []),
    ("A statue of a lion turns beside a fountain", [], ["statue", "fountain"]),
    ("A drone follows a tractor over a field", ["drone", "tractor"], []),
    ("Children kick a ball; the goalkeeper catches it", ["child", "goalkeeper"], ["ball"]),
    ("Dogs run. A dog barks.", ["dog"], []),
]


@pytest.mark.parametrize(("caption", "agents", "objects"), NAMED)
def test_agents_and_objects(caption: str, agents: list[str], objects: list[str]) -> None:
    found = curated(caption)
    assert (found.agents, found.objects) == (agents, objects)


TRAPS = [
    ("A crane lifts a beam at a construction site", [], ["crane"]),
    ("A crane wades through a lake", ["crane"], []),
    ("A mouse runs across the kitchen", ["mouse"], []),
    ("A woman moves the mouse next to the keyboard", ["woman"], ["mouse", "keyboard"]),
    ("A seal dives into the sea", ["seal"], []),
    ("A bat flies out of a cave", ["bat"], []),
    ("A jaguar runs through the jungle", ["jaguar"], []),
    ("A carpenter hammers a nail into wood", ["carpenter"], ["nail"]),
    ("A duck swims past a boat", ["duck", "boat"], []),
    ("A duck ducks under a fence", ["duck"], ["fence"]),
    ("A bear fishes in the river", ["bear"], []),
    ("An excavator digs while a worker watches", ["excavator", "worker"], []),
]


@pytest.mark.parametrize(("caption", "agents", "objects"), TRAPS)
def test_words_with_two_meanings(caption: str, agents: list[str], objects: list[str]) -> None:
    found = curated(caption)
    assert (found.agents, found.objects) == (agents, objects)


@pytest.mark.parametrize("toy", ["rubber duck", "toy horse", "plush dog", "wooden horse", "plastic dinosaur"])
def test_a_toy_animal_is_an_object(toy: str) -> None:
    found = curated(f"A robot drives around a yellow {toy}. The {toy.split()[1]} does not move.")
    assert (found.agents, found.objects) == (["robot"], [toy])


def test_teddies_are_objects_and_robot_dogs_are_agents() -> None:
    found = curated("A humanoid robot, a robot dog and a teddy bear move around a teddy. The robot turns left.")
    assert found.agents == ["humanoid robot", "robot dog"]
    assert found.objects == ["teddy bear", "teddy"]
    assert found.category == "robots"


def test_two_of_a_kind_are_told_apart_by_colour_and_size() -> None:
    found = curated("A small robot follows a large robot past a red cube, a blue cube and a green ball.")
    assert (found.agents, found.objects) == (["small robot", "large robot"], ["red cube", "blue cube", "ball"])


COCO = {
    "PAV": "person bicycle car motorcycle airplane bus train truck boat bird cat dog horse sheep cow elephant bear "
    "zebra giraffe snowboard skateboard surfboard",
    "O": "traffic_light fire_hydrant stop_sign parking_meter bench backpack umbrella handbag tie suitcase frisbee skis "
    "sports_ball kite baseball_bat baseball_glove tennis_racket bottle wine_glass cup fork knife spoon bowl banana "
    "apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch potted_plant bed dining_table toilet "
    "tv laptop computer_mouse remote keyboard cell_phone microwave oven toaster sink refrigerator book clock vase "
    "scissors teddy_bear hair_drier toothbrush",
}


@pytest.mark.parametrize(("letters", "names"), COCO.items())
def test_everyday_classes(letters: str, names: str) -> None:
    """The 80 classes of COCO, which are what captions mostly name."""
    wrong = []
    for name in names.split():
        noun = english().noun(name.replace("_", " "))
        if noun is None or not noun.letters & set(letters):
            wrong.append(name)
    assert wrong == []


NEITHER = (
    "street road room kitchen park beach sky",
    "morning time day summer",
    "shirt hat shoes dress",
    "arm leg face hair",
    "camera video scene background idea way",
    "water grass sand snow",
)


@pytest.mark.parametrize("words", NEITHER)
def test_places_times_clothes_and_matter_are_no_objects(words: str) -> None:
    for word in words.split():
        found = curated(f"A dog runs near the {word}")
        assert (found.agents, found.objects) == (["dog"], []), word


CATEGORY = [
    ("A dog chases a cat past a man", "animals"),
    ("A man and a woman walk past a dog", "people"),
    ("Cars drive past a man", "vehicles"),
    ("Two players dribble a basketball", "sports"),
    ("A robot pushes a cube", "robots"),
    ("A ball rolls off a table", "objects"),
]


@pytest.mark.parametrize(("caption", "category"), CATEGORY)
def test_category(caption: str, category: str) -> None:
    assert curated(caption).category == category
    assert category in {*CATEGORIES.values(), "sports", "objects"}


@pytest.mark.parametrize(
    "caption",
    [
        "A static camera shows a robot driving past a table",
        "The camera orbits a table with a teapot",
        "A ball rolls off a table",
        "A horse race",
        "A man in a kitchen",
    ],
)
def test_dynamic(caption: str) -> None:
    found = curated(caption)
    assert found.dynamic
    assert found.reason == ""


@pytest.mark.parametrize(
    "caption",
    [
        "Still life with apples and a vase on a table",
        "Nothing moves: a mug and a plate on a table",
        "A parked car in front of a house",
        "A man sits on a chair",
        "A vase on a table",
        "Motionless statues and a bench",
    ],
)
def test_static(caption: str) -> None:
    found = curated(caption)
    assert not found.dynamic
    assert found.reason.startswith("static: ")


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("", "empty caption"),
        (" \n\t ", "empty caption"),
        ("Ein Hund läuft über die Straße und jagt einen Ball", "not English"),
        ("Un chat noir court dans la rue derrière une voiture", "not English"),
        ("一只狗在追一个球", "not English"),
        ("Собака бежит за мячом", "not English"),
        ("🐕🏃‍♂️", "not English"),
        ("!!! ??? ...", "not English"),
        ("12345 678", "not English"),
        ("The morning was beautiful and it was moving on", "nothing named"),
    ],
)
def test_captions_that_say_nothing_are_dropped_with_a_reason(caption: str, reason: str) -> None:
    assert curated(caption).reason.startswith(reason)


@pytest.mark.parametrize(
    "caption",
    [
        "a dog " * 200_000,
        "x" * 2_000_000,
        "'" * 100_000,
        "the of and " * 50_000,
        "\0\x1b[31m dog runs",
        "dog\ud800 runs",
    ],
)
def test_long_and_hostile_captions_are_read_in_a_moment(caption: str) -> None:
    started = time.perf_counter()
    curated(caption)
    assert time.perf_counter() - started < 10


@given(st.text(max_size=300))
def test_any_text_is_curated(caption: str) -> None:
    found = curated(caption)
    assert len(set(found.agents + found.objects)) == len(found.agents + found.objects) <= 12
    assert bool(found.reason) or bool(found.agents + found.objects)


WORDS = "a the red small dogs man walks car parks of and robot running statue group 's , . toy people is to"


@given(st.lists(st.sampled_from(WORDS.split()), max_size=40))
def test_any_order_of_words_is_curated(words: list[str]) -> None:
    found = curated(" ".join(words))
    assert set(found.agents + found.objects) <= set(curated(" ".join(words), max_nouns=100).agents + found.objects)


def test_no_more_nouns_than_asked_for() -> None:
    found = curated("A dog, a cat, a cube, a horse and a ball run", max_nouns=3)
    assert (found.agents, found.objects) == (["dog", "cat"], ["cube"])


@pytest.mark.parametrize("kind", [*AGENTS, *OBJECTS], ids=lambda kind: kind.word)
def test_the_simulators_bodies_are_what_it_says_they_are(kind: Kind) -> None:
    names = [f"{colour} {kind.word}" for colour in kind.colours[:2]] or [kind.word]
    for verb in ("moves past a sign", "rolls across the floor", "stands still while a sign falls over"):
        found = curated(" ".join(f"A {name} {verb}." for name in names))
        said, others = (found.agents, found.objects) if kind.is_agent else (found.objects, found.agents)
        assert [name for name in said if name != "sign"] == names
        assert set(others) <= {"sign"}
