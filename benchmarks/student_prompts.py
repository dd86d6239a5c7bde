"""Prompts for the text that the student learns from: lists of things, and ways to ask for them.

The target writes the text itself (benchmarks/student_corpus.py); a prompt only sets a subject and a
form. Questions go through the chat template, openings are continued as they stand. Every tenth
subject is kept for judging, with questions of its own; only openings that name no subject may be in
both parts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from infero.tokenizer import Tokenizer


def listed(text: str) -> list[str]:
    """The entries of a list: one a line, or several with | between them; \\n is a line's end."""
    parts = [part.strip() for line in text.splitlines() for part in line.split("|")]
    return [part.replace("\\n", "\n") for part in parts if part]


SUBJECTS = listed("""
photosynthesis | black holes | the French Revolution | compound interest | gradient descent
volcanoes | the water cycle | honey bees | jazz music | the Roman Empire | vaccines
earthquakes | the stock market | chess openings | electric cars | coral reefs | meditation
the immune system | bread baking | solar panels | the Silk Road | dinosaurs | neural networks
the human heart | glaciers | impressionist painting | inflation | time zones | rainbows
the printing press | antibiotics | wind turbines | the Great Wall of China | databases | sleep
nutrition | the moon landing | tides | Shakespeare's plays | the Industrial Revolution | DNA
recycling | public speaking | time management | gardening | marathon training | coffee
tea ceremonies | typography | sailing | bird migration | the Amazon rainforest | deserts
the periodic table | magnetism | gravity | light and colour | sound waves | batteries
the internet | encryption | operating systems | sorting algorithms | recursion | binary search
linked lists | hash tables | web servers | version control | unit tests | Python decorators
SQL joins | regular expressions | probability | prime numbers | Pythagoras' theorem | calculus
statistics | geometry | fractions | negative numbers | the Fibonacci sequence | logic puzzles
game theory | supply and demand | budgeting | taxes | insurance | mortgages | small businesses
marketing | customer service | job interviews | teamwork | leadership | remote work
negotiation | friendship | parenting | teaching children | homework | bullying | stress
anxiety | yoga | running shoes | swimming | cycling | football | basketball | tennis
the Olympic Games | skiing | mountain climbing | camping | fishing | hiking | travel on a budget
Japan | Brazil | Egypt | India | Iceland | Kenya | Canada | Italy | Mexico | Norway | Vietnam
New Zealand | London | Paris | New York | Tokyo | Istanbul | the Sahara | the Alps
the Mississippi river | the Pacific ocean | Antarctica | penguins | elephants | dolphins | owls
cats | dogs | horses | snakes | butterflies | spiders | sharks | whales | wolves | bears | frogs
ants | trees | mushrooms | roses | wheat | rice | corn | tomatoes | chocolate | cheese
olive oil | spices | soup | pasta | pizza | curry | salads | desserts | vegetarian cooking
food safety | the history of medicine | surgery | dentistry | eyesight | hearing | allergies
diabetes | vitamins | exercise | posture | first aid | fire safety | road safety | bicycles
trains | aeroplanes | rockets | satellites | telescopes | microscopes | robots | 3D printing
smartphones | video games | cinema | photography | theatre | ballet | opera | guitars | pianos
violins | drums | poetry | novels | fairy tales | science fiction | detective stories
biographies | newspapers | radio | television | advertising | fashion | architecture | bridges
tunnels | castles | cathedrals | skyscrapers | city planning | parks | museums | libraries
schools | universities | elections | constitutions | human rights | the United Nations
the European Union | the Cold War | the First World War | ancient Greece | ancient Egypt
the Vikings | the Renaissance | the Middle Ages | the Aztecs | the Ottoman Empire
the Mughal Empire | Marie Curie | Albert Einstein | Isaac Newton | Ada Lovelace
Leonardo da Vinci | Mozart | Nelson Mandela | Cleopatra | Charles Darwin | Galileo
climate change | air pollution | plastic waste | drinking water | renewable energy
nuclear power | forests | farming | overfishing | endangered species | artificial intelligence
machine translation | search engines | social media | privacy | copyright | open source | money
banks | trade | globalisation | poverty | charity | volunteering | philosophy | ethics
happiness | courage | honesty | memory | dreams | language learning | grammar | handwriting
origami | knitting | carpentry | pottery | painting walls | house plants | cleaning
moving house | birthday parties | weddings | holidays | gifts | winter | summer
""")

QUESTIONS = listed("""
Explain {s} in simple terms. | What is {s}? Give a short answer. | Why does {s} matter?
Write a short paragraph about {s}. | List five facts about {s}.
What are the main ideas behind {s}? | How would you explain {s} to a ten-year-old?
What are common misconceptions about {s}? | Write a poem about {s}. | Write a haiku about {s}.
Give me three questions to ask an expert on {s}.
Summarize the history of {s} in a few sentences.
What are the advantages and disadvantages of {s}? | Write an email to a friend about {s}.
Write a dialogue between two people who discuss {s}.
Give step-by-step advice for someone who is new to {s}. | Compare {s} and {t}.
How are {s} and {t} connected? | Write the introduction of an essay about {s}.
Write a short story in which {s} plays a part. | Make a lesson plan about {s} for one hour.
Write a product review that mentions {s}. | What should I read to learn more about {s}?
Invent a riddle about {s}. | Write a tweet about {s}. | Describe {s} using only short sentences.
Write a table of contents for a book about {s}. | What are the latest developments in {s}?
Give me ten words related to {s} and explain each. | Write a speech of one minute about {s}.
What mistakes do beginners make with {s}? | How has {s} changed over the last century?
Suggest five titles for an article about {s}.
Write a quiz with four questions about {s} and answers.
Is {s} more important than {t}? Argue for one side.
Describe a day in the life of someone who works with {s}.
What is the relationship between {s} and money? | Tell me something surprising about {s}.
Can you give me some tips about {s}? | Rewrite this sentence more formally: I really like {s}.
Translate into French: I would like to learn about {s}.
Correct the grammar: Me and him was talking about {s}.
Write a function in Python that stores notes about {s} in a dictionary.
Write a class in Python that models {s}. | Write a letter of complaint about {s}.
Explain {s} with an analogy.
""")

HELD_QUESTIONS = listed("""
Tell me about {s}. | What do I need to know about {s}?
Write two paragraphs on {s} and its effects. | Why are people interested in {s}?
Write a story about {s} with a happy end. | Give me a list of ideas for a project on {s}.
Help me understand how {s} works. | Write a Python program that prints facts about {s}.
What is the difference between {s} and {t}?
""")

CODE = listed("""
Write a Python function that {a}. | Write a JavaScript function that {a}.
Write a C program that {a}. | How do I write code that {a}?
Explain how an algorithm that {a} works. | Write a test for a function that {a}.
""")
ACTIONS = listed("""
reverses a string | checks whether a number is prime | sorts a list of integers
counts words in a file | finds the largest element of a list | merges two sorted lists
computes the factorial of n | checks whether a word is a palindrome
converts Celsius to Fahrenheit | removes duplicates from a list | reads a CSV file
generates a random password | finds the greatest common divisor | flattens a nested list
computes the nth Fibonacci number | counts the vowels of a sentence | transposes a matrix
searches a sorted array | validates an email address | prints a multiplication table
parses a date | downloads a web page | computes the mean and the median
draws a triangle of stars | simulates a coin toss | implements a stack | implements a queue
reverses a linked list | balances parentheses | computes compound interest
""")

OPENINGS = listed(r"""
Once upon a time, in a village near {p}, there lived {w} who | The first thing {n} noticed was
It was a cold morning in {p} when {n} | "I don't believe it," said {n}, looking at
{n} had always been afraid of {s}, until one day | The history of {s} begins with
In this article, we will look at {s} and | # Introduction to {s}\n\n | ## {s}\n\nThis chapter
The most important thing about {s} is that | Scientists have recently discovered that {s}
Dear {n},\n\nThank you for your letter about {s}. | There are three reasons why {s}
def main():\n    '''A program about {s}.'''\n | import math\n\n\ndef
class {n}:\n    def __init__(self | Q: What is {s}?\nA: | Abstract: We study {s} and show that
Chapter 1: {s}\n\n | {n} and {m} were walking through {p}
""")
NAMES = listed("""
Anna | Ben | Chloe | David | Elena | Farid | Grace | Hugo | Ines | James | Kofi | Lena | Maya
Noah | Olga | Priya
""")
PLACES = listed("""
the sea | London | a dark forest | the old harbour | Cairo | the mountains | a small island
Kyoto
""")
WHO = listed("""
a baker | an old fisherman | a curious girl | a clever fox | a retired teacher | a young queen
""")
SYSTEMS = ["You are a helpful assistant.", "You are a patient teacher. Answer briefly.",
           "You are an expert who answers in detail.", "You write in a friendly tone."]
SUMS = ["What is {a} plus {b}?", "Calculate {a} * {b}.",
        "If I have {a} apples and buy {b} more, how many do I have?",
        "A train travels {a} km in {b} hours. What is its speed?"]


@dataclass(frozen=True)
class Prompt:
    """Token ids, and how the answer is drawn."""

    ids: list[int]
    temperature: float
    max_tokens: int


def held_out(subject: str) -> bool:
    """Whether a subject is kept for judging: every tenth."""
    return SUBJECTS.index(subject) % 10 == 7


def chat(tokenizer: Tokenizer, text: str, draw: random.Random) -> list[int]:
    messages = [{"role": "user", "content": text}]
    if draw.random() < 0.15:
        messages.insert(0, {"role": "system", "content": draw.choice(SYSTEMS)})
    return tokenizer.encode(tokenizer.apply_chat_template(messages))


def question(draw: random.Random, subjects: Sequence[str], templates: Sequence[str]) -> str:
    return draw.choice(templates).format(s=draw.choice(subjects), t=draw.choice(subjects))


def opening(draw: random.Random, subjects: Sequence[str]) -> str:
    return draw.choice(OPENINGS).format(
        s=draw.choice(subjects), n=draw.choice(NAMES), m=draw.choice(NAMES),
        p=draw.choice(PLACES), w=draw.choice(WHO))


def training(tokenizer: Tokenizer, text: Sequence[int], seed: int) -> Iterator[Prompt]:
    """Prompts without end: questions, code, sums, openings, beginnings of `text`, nothing at all.

    text: token ids of the calibration text. Temperatures from 0.6 to 1.0, now and then greedy.
    """
    draw = random.Random(seed)
    subjects = [s for s in SUBJECTS if not held_out(s)]
    while True:
        kind, length, temperature = draw.random(), 384, draw.choice((0.6, 0.7, 0.8, 0.9, 1.0))
        temperature = 0.0 if draw.random() < 0.1 else temperature
        if kind < 0.60:
            ids = chat(tokenizer, question(draw, subjects, QUESTIONS), draw)
        elif kind < 0.68:
            ids = chat(tokenizer, draw.choice(CODE).format(a=draw.choice(ACTIONS)), draw)
        elif kind < 0.71:
            asked = draw.choice(SUMS).format(a=draw.randint(2, 99), b=draw.randint(2, 99))
            ids = chat(tokenizer, asked, draw)
        elif kind < 0.88:
            ids, length = tokenizer.encode(opening(draw, subjects)), 256
        elif kind < 0.95 and len(text) > 128:
            start, count = draw.randrange(len(text) - 96), draw.randint(8, 64)
            ids, length = list(text[start : start + count]), 192
        else:
            ids, length = [draw.choice((0, 1))], 256
            temperature = draw.choice((0.9, 1.0))  # or all such texts would be alike
        yield Prompt(ids, temperature, length)


def judging(tokenizer: Tokenizer, text: Sequence[int], count: int, temperature: float,
            seed: int = 7) -> list[Prompt]:
    """The same `count` prompts at any temperature: subjects and phrasings never trained on.

    text: token ids of the evaluation text.
    """
    draw = random.Random(seed)
    subjects = [s for s in SUBJECTS if held_out(s)]
    found = []
    for i in range(count):
        if i % 8 == 6:
            ids = tokenizer.encode(opening(draw, subjects))
        elif i % 8 == 7 and len(text) > 128:
            start = draw.randrange(len(text) - 96)
            ids = list(text[start : start + 32])
        else:
            ids = chat(tokenizer, question(draw, subjects, HELD_QUESTIONS), draw)
        found.append(Prompt(ids, temperature, 192))
    return found
