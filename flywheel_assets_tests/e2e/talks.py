"""Texts for situations: small talk about different things, so that no row is a duplicate of another situation's."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Talk:
    """What was asked, the model's answer, a person's own text, and another answer of a model."""

    prompt: str
    output: str
    better: str
    other: str


TALKS = [
    Talk(
        "Name a bird that cannot fly",
        "Pigeons are birds that never fly.",
        "Penguins are birds that never fly at all.",
        "An ostrich runs, but it cannot fly.",
    ),
    Talk(
        "How do I boil an egg softly?",
        "Boil the egg for half an hour.",
        "Boil the egg for some minutes, then cool it.",
        "Steam it gently and keep it warm.",
    ),
    Talk(
        "Say thanks to our gardener",
        "Thanks for the work.",
        "Thank you for all the work on the hedge!",
        "We are grateful for the lovely garden.",
    ),
    Talk(
        "Which river flows through Cairo?",
        "The Danube flows through Cairo.",
        "The Nile is the river of Cairo.",
        "Cairo lies at the Niger.",
    ),
    Talk(
        "Describe the taste of a lemon",
        "A lemon tastes rather sweet.",
        "A lemon tastes sour and very fresh.",
        "Lemons are bitter like coffee.",
    ),
    Talk(
        "Why is the night sky dark?",
        "Because the sun is behind clouds.",
        "Because the sun is on the other side of the earth.",
        "Stars are switched off.",
    ),
    Talk(
        "Tell my landlord the tap drips",
        "The tap is broken, repair it.",
        "Good day, the kitchen tap drips. Could you have it repaired?",
        "Please mind the tap.",
    ),
    Talk(
        "What does a cello sound like?",
        "A cello sounds shrill and high.",
        "A cello sounds warm and low, like a voice.",
        "It is a loud drum.",
    ),
    Talk(
        "Suggest a name for a sailing boat",
        "Call the boat Stone.",
        "Call the boat Northern Wind.",
        "Perhaps the boat is a Heron.",
    ),
    Talk(
        "How can I remove red wine from wool?",
        "Wash the wool at full heat.",
        "Dab the wool with cold water and salt.",
        "Cut the stain out of the fabric.",
    ),
    Talk(
        "Explain what a mortgage is",
        "A mortgage is a kind of rent.",
        "A mortgage is a loan that a house secures.",
        "It is an insurance for cars.",
    ),
    Talk(
        "Recommend a walk for small children",
        "Climb the north face at dawn.",
        "Walk around the pond and feed the ducks.",
        "Take the motorway bridge.",
    ),
    Talk(
        "Write a slogan for our bakery",
        "We sell bread.",
        "Bread that is still warm when you sit down to breakfast.",
        "Flour, water, oven.",
    ),
    Talk(
        "What do beavers build?",
        "Beavers build nests in tall trees.",
        "Beavers build dams of branches and mud.",
        "They dig deep tunnels for foxes.",
    ),
    Talk(
        "Cancel my dentist appointment politely",
        "I am not coming.",
        "Sorry, I have to cancel my appointment at the dentist.",
        "No dentist for me.",
    ),
    Talk(
        "How does a kite stay up?",
        "A kite is lighter than air.",
        "The wind lifts a kite while its line holds it.",
        "Helium carries the kite.",
    ),
    Talk(
        "Give a reason to learn Latin",
        "Latin is spoken in Brazil.",
        "Latin helps to read old books and to learn Italian.",
        "It is needed to cook.",
    ),
    Talk(
        "What is a good gift for a librarian?",
        "Give her a noisy trumpet.",
        "Give her a fine bookmark made of leather.",
        "A fishing rod would be nice.",
    ),
    Talk(
        "Translate good evening to Italian",
        "Good evening is buongiorno.",
        "Good evening is buona sera in Italian.",
        "It is called arrivederci.",
    ),
    Talk(
        "Advise me about new running shoes",
        "Buy the cheapest shoes there are.",
        "Buy shoes that leave room for your toes.",
        "Run without any shoes on ice.",
    ),
    Talk(
        "Where do swallows go in winter?",
        "Swallows sleep in the mud of lakes.",
        "Swallows fly to Africa for the winter.",
        "They stay inside chimneys.",
    ),
    Talk(
        "Summarise the story of Icarus",
        "A boy flies to the moon and stays there.",
        "A boy flies too near the sun and falls.",
        "A king turns bread to gold.",
    ),
    Talk(
        "How should I store fresh basil?",
        "Put the basil in the freezer at once.",
        "Put the basil in a glass of water.",
        "Leave the leaves in the sun.",
    ),
    Talk(
        "Invite the choir to the summer party",
        "There is a party, come.",
        "Dear singers, please come to our summer party in the park!",
        "Choir: party soon.",
    ),
    Talk(
        "What makes bread rise?",
        "Salt makes bread rise quickly.",
        "Yeast makes bread rise with tiny bubbles of gas.",
        "The oven pulls it upwards.",
    ),
    Talk(
        "Describe an iceberg in a sentence",
        "An iceberg is a warm island.",
        "An iceberg floats with most of its ice under water.",
        "It is a ship of glass.",
    ),
    Talk(
        "Why do cats purr?",
        "Cats purr when they are hungry only.",
        "Cats purr when they are content, or to calm themselves.",
        "It is their way to sneeze.",
    ),
    Talk(
        "Ask the neighbours to be quieter",
        "Be quiet now, all of you.",
        "Could you play the music more softly after dinner, please?",
        "Silence, neighbours.",
    ),
    Talk(
        "What is a sonnet?",
        "A sonnet is a very long novel.",
        "A sonnet is a short poem with a strict form.",
        "A sonnet is a dance in a circle.",
    ),
    Talk(
        "How do bees find flowers?",
        "Bees hear the flowers sing.",
        "Bees see colours and smell the nectar of flowers.",
        "A map shows them the meadow.",
    ),
    Talk(
        "Praise the new office chair",
        "The chair is there.",
        "The new chair keeps my back straight all day long.",
        "Chairs stand on the floor.",
    ),
    Talk(
        "Which tool cuts a hedge?",
        "A hammer cuts the hedge best.",
        "A pair of shears cuts the hedge evenly.",
        "Use the lawn roller for that.",
    ),
    Talk(
        "What should I cook for a vegan friend?",
        "Cook a chicken with butter.",
        "Cook lentils with tomatoes and plenty of herbs.",
        "Serve cheese on toast.",
    ),
    Talk(
        "Tell a child why leaves fall",
        "Leaves fall as trees are sad.",
        "Leaves fall so that the tree can rest in winter.",
        "Squirrels throw them down.",
    ),
    Talk(
        "How do I greet a Japanese customer?",
        "Shake both hands wildly.",
        "Bow a little and hand over your card with both hands.",
        "Wave from far away.",
    ),
    Talk(
        "What is the use of a compass?",
        "A compass measures the heat.",
        "A compass shows the way to the north.",
        "It counts the steps of a walk.",
    ),
    Talk(
        "Find a rhyme for the word light",
        "A rhyme for light is lamp.",
        "A rhyme for light is night, or bright.",
        "Try the word orange.",
    ),
    Talk(
        "How do lighthouses help ships?",
        "They pull the ships ashore.",
        "Their light warns ships of rocks at night.",
        "They sell fuel to captains.",
    ),
    Talk(
        "Write a note for the postman",
        "Post goes in there.",
        "Please leave parcels with the shop across the road. Thank you!",
        "Hello postman, bye.",
    ),
    Talk(
        "What do you pack for a picnic?",
        "Pack a heavy oak table.",
        "Pack a blanket, bread, fruit and something to drink.",
        "Only an umbrella.",
    ),
    Talk(
        "Why is glass transparent?",
        "Glass is made of frozen water.",
        "Light passes through glass without being absorbed.",
        "It is painted clear.",
    ),
    Talk(
        "How can a shy person make friends?",
        "Shout at strangers in trains.",
        "Join a small club and ask people about themselves.",
        "Wait at home for years.",
    ),
    Talk(
        "What colour is a ripe plum?",
        "A ripe plum is bright yellow.",
        "A ripe plum is dark blue or purple.",
        "A ripe plum is as grey as a stone.",
    ),
    Talk(
        "Thank the fire brigade",
        "You were quick.",
        "Dear firefighters, thank you for coming so quickly last night!",
        "Thanks, and goodbye.",
    ),
    Talk(
        "How do I tune a guitar?",
        "Turn all pegs until they stop.",
        "Tune each string to its note with a fork or an app.",
        "Ask a drummer to hit it.",
    ),
    Talk(
        "Why do onions make us cry?",
        "Onions are sad vegetables.",
        "Cut onions set free a gas that stings the eyes.",
        "The knife is too cold.",
    ),
    Talk(
        "Describe a hedgehog",
        "A hedgehog is a bird with a beak.",
        "A hedgehog is a small animal with spines.",
        "It looks like a long fish.",
    ),
    Talk(
        "What does a judge do?",
        "A judge paints the walls of a court.",
        "A judge hears both sides and decides a case.",
        "A judge drives the prisoners home.",
    ),
    Talk(
        "Announce the school concert",
        "Concert, Friday.",
        "Our school choir sings on Friday evening. Everyone is welcome!",
        "There will be noise in the hall.",
    ),
    Talk(
        "How is cheese made?",
        "Cheese grows on the bark of trees.",
        "Cheese is made of milk that curdles and ripens.",
        "One digs it out of caves.",
    ),
    Talk(
        "What is a haiku?",
        "A haiku is an opera in five acts.",
        "A haiku is a Japanese poem of three short lines.",
        "It is a kind of raw fish.",
    ),
    Talk(
        "Warn hikers about ticks",
        "Ticks are fun.",
        "Please check your legs for ticks after the hike.",
        "Hikers, run.",
    ),
    Talk(
        "How is paper recycled?",
        "Old paper is buried in sand.",
        "Old paper is soaked, cleaned and pressed again.",
        "Old paper is burnt to ashes.",
    ),
    Talk(
        "What is an alibi?",
        "An alibi is a kind of camel.",
        "An alibi is the proof that someone was elsewhere.",
        "An alibi is a fine that one pays.",
    ),
]
