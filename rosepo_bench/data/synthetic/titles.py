"""Invented titles for the synthetic replicas: common English words and made-up compounds, no real title.

They resemble real catalogues in what a language model can use: the volumes of a series share words, and many nouns
belong to a genre. They also have the traps: adjectives are shared by all genres, so that two titles can look alike and
please different people, and a spin-off carries the words of a series in another genre."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ADJECTIVES = _words(
    "Iron Glass Hollow Muted Vermilion Cracked Amber Distant Velvet Frosted Smoky Parchment Copper "
    "Sunken Wandering Gilded Ashen Bitter Bright Painted Restless Savage Gentle Veiled Northern "
    "Cinnabar Pale Feral Salt Autumnal Leftover Second Lonely Quiet Rusted Marble Thorned Feathered "
    "Lamplit Stubborn Borrowed Neglected Tangled Clockwork Ivory Drowned Electric Honest Crooked "
    "Patient Weary Sapphire Dusty Woven Tidal Smoldering Humble Nameless Radiant"
)
NOUNS = _words(
    "Harbor Orchard Lantern River Meadow Tower Garden Bridge Mirror Island Valley Crown Road Door "
    "Engine Window Forest Market Bell Station Letter Map Key Stone Feather Compass Hill Shore Candle "
    "Clock Ribbon Field Cellar Anchor Staircase Kite Well Hearth Quarry Ladder"
)
NUMERALS = ("", "II", "III", "IV", "V", "VI", "VII", "VIII")
SUBTITLES = _words(
    "Ashfall Nightwatch Undertow Homecoming Aftermath Reckoning Daybreak Emberline Freefall Longroad "
    "Outlands Redline Shoreleave Skyward Stillwater Tidebreak Undercroft Wintergate Wayfarer Landfall "
    "Deepwater Firstlight Driftwood Hinterland Backwater Overgrowth Sidewinder Thunderhead Underpass "
    "Windbreak"
)
PREFIXES = _words(
    "Lantern Aspen Thorn Raven Winter Silver Hollow Stone Ember Mist Wolf Starling Briar Marrow Frost "
    "Copper Willow Storm Moth Salt Crow Fern Gale Harrow Juniper Larch Nettle Pike Quill Rook Sable "
    "Tallow"
)
SUFFIXES = _words("fall mere wood gate reach moor haven watch ridge light vale crest hollow mark spire wick ford helm")

GENRE_NOUNS: dict[str, dict[str, tuple[str, ...]]] = {
    "steam": {
        "Action": _words(
            "Vanguard Trigger Gunfire Commando Onslaught Barrage Sniper Brigade Warhead Striker Assault Bullet"
        ),
        "Strategy": _words(
            "Empire Dominion Conquest Garrison Legion Siege Regent Outpost Frontier Warlord Bastion Treaty"
        ),
        "Puzzle": _words("Cipher Tiles Riddle Labyrinth Cube Sequence Logic Mosaic Circuit Pattern Jigsaw Enigma"),
        "Racing": _words("Throttle Circuitway Rally Drift Asphalt Turbo Grid Speedway Lap Chicane Overdrive Pitlane"),
        "Horror": _words("Asylum Whisper Corpse Crypt Shiver Dread Haunting Scream Morgue Nightmare Gallows Séance"),
        "Simulation": _words(
            "Farm Airport Tycoon Trucker Workshop Railyard Brewery Hospital Builder Colony Bakery Shipyard"
        ),
        "Adventure": _words(
            "Expedition Voyage Caravan Relic Odyssey Stowaway Jungle Treasure Wanderer Detective Castaway Atlas"
        ),
        "RPG": _words("Dragon Paladin Dungeon Conjurer Rune Quest Oracle Grimoire Squire Goblin Wyvern Alchemist"),
    },
    "goodreads": {
        "Fantasy": _words("Dragon Throne Sorcery Witch Enchantment Griffin Rune Prophecy Wizard Halberd Realm Spell"),
        "Mystery": _words(
            "Inspector Alibi Vicarage Clue Poison Constable Inheritance Witness Parlor Suspect Autopsy Locket"
        ),
        "Romance": _words(
            "Kiss Bride Heart Wedding Suitor Duchess Valentine Promise Sweetheart Courtship Ballroom Bouquet"
        ),
        "History": _words(
            "Empire Regiment Revolution Dynasty Armada Parliament Crusade Emperor Trench Colony Treaty Cavalry"
        ),
        "Science Fiction": _words(
            "Starship Android Orbit Colony Nebula Quantum Asteroid Robot Galaxy Beacon Reactor Telescope"
        ),
        "Young Adult": _words(
            "Summer Sophomore Locker Curfew Skateboard Crush Playlist Homeroom Carnival Diary Prom Sleepover"
        ),
        "Thriller": _words(
            "Hostage Poacher Conspiracy Verdict Fugitive Blackmail Cartel Surveillance Ransom "
            "Informant Detonator Safehouse"
        ),
        "Poetry": _words("Sonnet Elegy Ode Stanza Verse Hymn Lament Psalm Refrain Canto Lullaby Couplet"),
    },
}
SPINOFFS: dict[str, list[str]] = {
    "steam": ["{} Tactics", "{} Arcade", "{} Pinball", "{}: Card Battles", "{} Kart", "{} Party"],
    "goodreads": [
        "The {} Companion",
        "Cooking with {}",
        "The World of {}",
        "The {} Coloring Book",
        "Letters from {}",
    ],
}
_TRIES = 10_000


class TitleMaker:
    """Draws titles of one kind; no title is ever drawn twice."""

    def __init__(self, kind: str, rng: np.random.Generator) -> None:
        self.kind, self.rng = kind, rng
        self.used: set[str] = set()

    def single(self, genre: str) -> str:
        """A work that belongs to no series."""
        return self._fresh(lambda: self._phrase(self._pick(ADJECTIVES), genre))

    def series(self, genre: str, volumes: int) -> tuple[str, list[str]]:
        """The series' name and the titles of its volumes in order; they share at least one word."""
        return self._game_series(genre, volumes) if self.kind == "steam" else self._book_series(genre, volumes)

    def spinoff(self, name: str) -> str:
        """A title with a series' words for a work of another genre."""
        return self._fresh(lambda: self._pick(SPINOFFS[self.kind]).format(name))

    def _game_series(self, genre: str, volumes: int) -> tuple[str, list[str]]:
        name = self._fresh(lambda: self._phrase(self._pick(ADJECTIVES), genre))
        style = self.rng.integers(3)
        titles = [name]
        for number in range(1, volumes):
            subtitle = self._pick(SUBTITLES)
            numeral = NUMERALS[number] if style else str(number + 1)
            title = f"{name} {numeral}: {subtitle}" if style == 2 else f"{name} {numeral}"
            self.used.add(title.casefold())
            titles.append(title)
        return name, titles

    def _book_series(self, genre: str, volumes: int) -> tuple[str, list[str]]:
        name = self._fresh(lambda: self._pick(PREFIXES) + self._pick(SUFFIXES))
        motif = self._pick(ADJECTIVES)  # "The Glass Orchard", "The Glass Crown": the volumes share it
        titles = [
            f"{self._fresh(lambda: self._phrase(motif, genre))} ({name}, #{number + 1})" for number in range(volumes)
        ]
        return name, titles

    def _phrase(self, adjective: str, genre: str) -> str:
        own = self.rng.random() < 0.7
        noun = self._pick(GENRE_NOUNS[self.kind][genre] if own else NOUNS)
        if self.kind == "steam":
            return f"{adjective} {noun}" if self.rng.random() < 0.8 else f"{adjective} {noun} {self._pick(NOUNS)}"
        shape = self.rng.integers(3)
        if shape == 0:
            return f"The {adjective} {noun}"
        other = self._pick(NOUNS)
        return f"The {adjective} {noun} of {other} Street" if shape == 1 else f"A {adjective} {noun} and the {other}"

    def _fresh(self, draw: Callable[[], str]) -> str:
        for _ in range(_TRIES):
            title = draw()
            if title.casefold() not in self.used:
                self.used.add(title.casefold())
                return title
        raise AssertionError("the word lists are too short for this many titles")

    def _pick(self, words: Sequence[str]) -> str:
        return words[int(self.rng.integers(len(words)))]
