"""Lists the words that turn a statement round: negations, opinions, members of opposite pairs.

Short on purpose, and for near duplicates only: a word that is missing lets two rows be one, a word too many keeps two
rows apart. Words are in lower case; of scripts without spaces only words of one or two characters are found.
"""

from functools import cache
from importlib.resources import files

_LEAST_VALENCE = 1.0
"""VADER's mean rating, −4 to 4, from which a word is an opinion: below stand "matter" and "number"."""


def _read_list(words: str) -> frozenset[str]:
    return frozenset(words.split())


# The languages of the lists below and of Eastern and Northern Europe; English "t" is what is left of "isn't".
NEGATIONS = _read_list(
    """
    not no never none nothing nowhere neither nor without cannot cant t dont doesnt isnt wont hardly barely
    unless
    except nicht kein keine keinen keiner keines keinem nie niemals nichts niemand ohne weder kaum niet geen
    nooit
    niets zonder pas ne aucun aucune jamais rien sans ni non nunca nada sin ningún ninguna ninguno jamás tampoco
    senza mai nessuno nessuna niente né não nem sem nenhum nenhuma nu fără niciodată nimic nici bez nigdy nic
    ani
    žádný не нет ни без никогда ничего нельзя никто немає ніколи inte ikke aldrig aldri ingen inga utan uten
    uden ei
    eivät ilman ole mitte pole soha nincs değil yok hiç asla tidak bukan jangan tanpa không chưa δεν όχι μη
    χωρίς لا
    ليس ليست لم لن بدون غير ما לא אין בלי אל نه نیست نمی هیچ नहीं न मत बिना छैन होइन না নয় নেই نہیں 不 没 沒 無
    无 非 未 别
    勿 莫 ない ませ ぬ 안 못 않 없 아니 ไม่ ไร้
    """
)

# German, French, Spanish, Italian, Portuguese, Dutch, Russian, Arabic, Hindi, Chinese, Japanese, Korean.
GOOD = _read_list(
    """
    gut gute guten guter gutes besser beste schön super toll hervorragend ausgezeichnet großartig wunderbar
    stark
    empfehlenswert sicher richtig erlaubt nützlich klar spannend schnell leicht einfach zufrieden gelungen bon
    bonne
    bons bonnes meilleur meilleure excellent excellente superbe magnifique beau belle merveilleux fort
    intéressant
    utile réussi parfait parfaite agréable facile correct heureux bueno buena buenos buenas buen mejor excelente
    hermoso hermosa maravilloso fuerte interesante útil perfecto perfecta agradable fácil correcto feliz genial
    buono buona buoni buone migliore eccellente bello bella meraviglioso forte interessante perfetto piacevole
    corretto felice ottimo ottima bom boa boas melhor ótimo ótima lindo maravilhoso perfeito perfeita agradável
    correto goed goede beter prachtig geweldig sterk nuttig хороший хорошая хорошее хорошие хорошо лучше лучший
    отличный отличная отлично прекрасный прекрасно сильный красивый интересный полезный легко جيد جيدة ممتاز
    ممتازة
    رائع رائعة جميل جميلة أفضل قوي مفيد सहज अच्छा अच्छी अच्छे बेहतर सुंदर शानदार उत्तम 好 棒 佳 优 優 美 妙 喜欢
    喜歡 良い いい 好き
    素敵 最高 面白 좋 훌륭 최고
    """
)

BAD = _read_list(
    """
    schlecht schlechte schlechten schlechter schlechtes schlimm furchtbar schrecklich schwach langweilig
    hässlich
    mies falsch verboten nutzlos unklar gefährlich schwer schwierig enttäuschend gescheitert mauvais mauvaise
    mauvaises pire nul nulle terrible affreux laid laide horrible faible ennuyeux inutile raté ratée désagréable
    difficile incorrect triste décevant décevante malo mala malos malas mal peor feo fea débil aburrido aburrida
    inútil desagradable difícil incorrecto pésimo decepcionante cattivo cattiva cattivi peggio peggiore
    terribile
    brutto brutta orribile debole noioso noiosa spiacevole scorretto pessimo pessima deludente mau má maus ruim
    pior
    terrível feio horrível fraco chato péssimo péssima slecht slechte slechter vreselijk zwak saai nutteloos
    плохой
    плохая плохое плохие плохо хуже худший ужасный ужасно слабый скучный скучно бесполезный трудно سيئ سيئة رديء
    ضعيف ممل قبيح أسوأ فظيع बुरा बुरी बुरे खराब ख़राब कमजोर बेकार 坏 壞 差 糟 烂 爛 劣 丑 醜 讨厌 討厭 悪い 嫌い
    最悪 退屈 나쁘 나쁜 싫
    """
)

# Members of opposite pairs, and names of numbers and days: each is its own anchor.
OPPOSABLE = _read_list(
    """
    or oder ou или
    all every each always least more less fewer only may might must can shall before after until since during above
    below up down inside outside first last next early late earlier later high low higher lower highest lowest fast
    slow faster slower quick hot cold warm cool dark heavy finish add remove added removed allow allows allowed deny
    denied forbid forbidden prohibited permitted required optional enable disable enabled disabled true false yes
    none null nil nan increase decrease increased decreased increases decreases rise fall rose fell rises falls gain
    lose gained lost buy sell hold bought sold accept reject accepted rejected include exclude included excluded
    import export public private internal external local global minimum maximum min max north south east west male
    female man woman men women january february march april june july august september october november december
    monday tuesday wednesday thursday friday saturday sunday today tomorrow yesterday morning afternoon evening
    night noon midnight one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty
    hundred thousand million billion half double twice once hourly daily weekly monthly yearly januar februar märz
    mai juni juli oktober dezember montag dienstag mittwoch donnerstag freitag samstag sonntag immer alle jeder muss
    darf kann vor nach mehr weniger größer kleiner janvier février mars avril juin juillet août septembre octobre
    novembre décembre lundi mardi mercredi jeudi vendredi samedi dimanche toujours tous avant après plus moins enero
    febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre lunes martes miércoles jueves
    viernes sábado domingo siempre todos antes después más menos gennaio febbraio aprile maggio giugno luglio
    settembre ottobre dicembre sempre tutti prima dopo più meno janeiro fevereiro março junho julho setembro outubro
    dezembro depois mais января февраля марта апреля мая июня июля августа сентября октября ноября декабря всегда
    все до после больше меньше
    """
)


@cache
def read_opinions() -> tuple[frozenset[str], frozenset[str]]:
    """Read the words of a good and of a bad opinion: VADER's for English, and the lists of other languages."""
    good, bad = set(GOOD), set(BAD)
    for line in files("vaderSentiment").joinpath("vader_lexicon.txt").read_text("utf-8").splitlines():
        word, valence, *_ = line.split("\t")
        if word.isalpha() and abs(float(valence)) >= _LEAST_VALENCE:
            (good if float(valence) > 0 else bad).add(word.lower())
    return frozenset(good), frozenset(bad)
