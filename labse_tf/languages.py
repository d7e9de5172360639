"""The one table of language codes and names of the package."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Language(NamedTuple):
    """A language of the table.

    Attributes:
        code: ISO 639-1 where it exists, else ISO 639-3 (or what corpora use where
            there is neither: `ber`, `map-bms`).
        name: English name.
        script: ISO 15924 code of the script that the bare code stands for.
        aliases: other codes of the same language.
    """

    code: str
    name: str
    script: str
    aliases: tuple[str, ...]


# `code aliases... Script Name`, by code. Individual languages that are the usual
# form of a macrolanguage are aliases of it (cmn of zh, arb of ar, pes of fa), and nb
# of no, as in most corpora; other varieties (arz, yue, prs) stand alone. kzj, which
# ISO has merged into dtp, stands alone because Tatoeba has a file of each.
_TABLE = """
aa aar Latn Afar; ab abk Cyrl Abkhazian; ach Latn Acoli; acm Arab Mesopotamian Arabic;
adh Latn Adhola; adx Tibt Amdo Tibetan; ae ave Avst Avestan; aeb Arab Tunisian Arabic;
af afr Latn Afrikaans; ak aka Latn Akan; alt Cyrl Southern Altai; am amh Ethi Amharic;
an arg Latn Aragonese; ang Latn Old English; ar ara arb Arab Arabic;
arq Arab Algerian Arabic; ary Arab Moroccan Arabic; arz Arab Egyptian Arabic;
as asm Beng Assamese; ast Latn Asturian; av ava Cyrl Avaric; avk Latn Kotava;
awa Deva Awadhi; ay aym ayr Latn Aymara; az aze azj Latn Azerbaijani;
azb Arab South Azerbaijani; ba bak Cyrl Bashkir; ban Latn Balinese;
bcc Arab Southern Balochi; bci Latn Baoulé; bcl Latn Central Bikol;
be bel be-tarask Cyrl Belarusian; ber Latn Berber; bew Latn Betawi;
bg bul Cyrl Bulgarian; bgn Arab Western Balochi; bho Deva Bhojpuri;
bi bis Latn Bislama; bjn Latn Banjar; blk Mymr Pa'O Karen; bm bam Latn Bambara;
bn ben Beng Bengali; bo bod tib Tibt Tibetan; bqi Arab Bakhtiari; br bre Latn Breton;
brx Deva Bodo; bs bos Latn Bosnian; btm Latn Batak Mandailing; bxr Cyrl Buryat;
ca cat Latn Catalan; cak Latn Kaqchikel; cbk Latn Chavacano; ce che Cyrl Chechen;
ceb Latn Cebuano; ch cha Latn Chamorro; ckb Arab Central Kurdish; co cos Latn Corsican;
cr cre Cans Cree; crh Latn Crimean Tatar; cs ces cze Latn Czech; csb Latn Kashubian;
cu chu Cyrl Church Slavic; cv chv Cyrl Chuvash; cy cym wel Latn Welsh;
da dan Latn Danish; dag Latn Dagbani; de deu ger Latn German; din dik Latn Dinka;
diq Latn Zazaki; doi dgo Deva Dogri; dsb Latn Lower Sorbian; dtp Latn Central Dusun;
dty Deva Dotyali; dv div Thaa Divehi; dz dzo Tibt Dzongkha; ee ewe Latn Ewe;
egl Latn Emilian; el ell gre Grek Greek; en eng Latn English; eo epo Latn Esperanto;
es spa Latn Spanish; et est ekk Latn Estonian; eu eus baq Latn Basque;
ext Latn Extremaduran; fa fas per pes Arab Persian; ff ful Latn Fula;
fi fin Latn Finnish; fj fij Latn Fijian; fo fao Latn Faroese; fr fra fre Latn French;
frp Latn Arpitan; frr Latn Northern Frisian; fur Latn Friulian;
fuv Latn Nigerian Fulfulde; fy fry Latn Western Frisian; ga gle Latn Irish;
gd gla Latn Scottish Gaelic; gl glg Latn Galician; gn grn gug Latn Guarani;
gor Latn Gorontalo; grc Grek Ancient Greek; gsw Latn Swiss German;
gu guj Gujr Gujarati; gur Latn Frafra; guw Latn Gun; guz Latn Gusii; gv glv Latn Manx;
ha hau Latn Hausa; hak Hant Hakka Chinese; he heb iw Hebr Hebrew; hi hin Deva Hindi;
hif Latn Fiji Hindi; hil Latn Hiligaynon; hne Deva Chhattisgarhi;
ho hmo Latn Hiri Motu; hr hrv Latn Croatian; hrx Latn Hunsrik; hsb Latn Upper Sorbian;
ht hat Latn Haitian Creole; hu hun Latn Hungarian; hy hye arm Armn Armenian;
hz her Latn Herero; ia ina Latn Interlingua; id ind in Latn Indonesian;
ie ile Latn Interlingue; ig ibo Latn Igbo; ii iii Yiii Sichuan Yi; ik ipk Latn Inupiaq;
ilo Latn Iloko; inh Cyrl Ingush; io ido Latn Ido; is isl ice Latn Icelandic;
isv Latn Interslavic; it ita Latn Italian; iu iku Cans Inuktitut; ja jpn Jpan Japanese;
jam Latn Jamaican Creole English; jv jav jw Latn Javanese; ka kat geo Geor Georgian;
kaa Latn Kara-Kalpak; kab Latn Kabyle; kam Latn Kamba; kcg Latn Tyap;
kg kon Latn Kongo; kge Latn Komering; khg Tibt Khams Tibetan; ki kik Latn Kikuyu;
kj kua Latn Kuanyama; kjh Cyrl Khakas; kk kaz Cyrl Kazakh; kl kal Latn Kalaallisut;
km khm Khmr Khmer; kn kan Knda Kannada; ko kor Kore Korean; koi Cyrl Komi-Permyak;
kok knn Deva Konkani; kr kau knc Latn Kanuri; krc Cyrl Karachay-Balkar;
ks kas Arab Kashmiri; ksh Latn Colognian; ku kur kmr Latn Kurdish; kv kom Cyrl Komi;
kw cor Latn Cornish; ky kir Cyrl Kyrgyz; kzj Latn Coastal Kadazan; la lat Latn Latin;
lb ltz Latn Luxembourgish; lfn Latn Lingua Franca Nova; lg lug Latn Ganda;
lgg Latn Lugbara; li lim Latn Limburgish; lij Latn Ligurian; ljp Latn Lampung Api;
lki Arab Laki; lmo Latn Lombard; ln lin Latn Lingala; lo lao Laoo Lao;
lrc Arab Northern Luri; lt lit Latn Lithuanian; lu lub Latn Luba-Katanga;
lus Latn Mizo; lv lav lvs Latn Latvian; lwg Latn Wanga;
lzh zh-classical Hant Literary Chinese; mag Deva Magahi; mai Deva Maithili;
map-bms Latn Banyumasan; mas Latn Masai; max Latn North Moluccan Malay;
mdf Cyrl Moksha; mfe Latn Morisyen; mg mlg plt Latn Malagasy; mh mah Latn Marshallese;
mhr Cyrl Meadow Mari; mi mri mao Latn Māori; min Latn Minangkabau; mjw Latn Karbi;
mk mkd mac Cyrl Macedonian; ml mal Mlym Malayalam; mn mon khk Cyrl Mongolian;
mni Mtei Manipuri; mnw Mymr Mon; mos Latn Mossi; mr mar Deva Marathi;
mrj Cyrl Western Mari; ms msa may zsm Latn Malay; mt mlt Latn Maltese;
my mya bur Mymr Burmese; myv Cyrl Erzya; myx Latn Masaaba; na nau Latn Nauru;
nan zh-min-nan Hant Min Nan Chinese; nap Latn Neapolitan; nd nde Latn Northern Ndebele;
nds Latn Low German; ne nep npi Deva Nepali; ng ndo Latn Ndonga; nl nld dut Latn Dutch;
nn nno Latn Norwegian Nynorsk; no nor nb nob Latn Norwegian; nov Latn Novial;
nqo Nkoo N'Ko; nr nbl Latn Southern Ndebele; nso Latn Northern Sotho; nuj Latn Nyole;
nus Latn Nuer; nv nav Latn Navajo; ny nya Latn Nyanja; oc oci Latn Occitan;
oj oji Cans Ojibwa; olo Latn Livvi; om orm gaz Latn Oromo; or ori ory Orya Odia;
orv Cyrl Old Russian; os oss Cyrl Ossetic; pa pan Guru Punjabi; pam Latn Pampanga;
pi pli Deva Pali; pl pol Latn Polish; pms Latn Piedmontese; pnb Arab Western Punjabi;
prg Latn Prussian; prs Arab Dari; ps pus pbt Arab Pashto; pt por Latn Portuguese;
qu que quy quz Latn Quechua; rm roh Latn Romansh; rn run Latn Rundi;
ro ron rum mo mol Latn Romanian; roa-tara Latn Tarantino; rsk Cyrl Ruthenian;
ru rus Cyrl Russian; rue Cyrl Rusyn; rw kin Latn Kinyarwanda; sa san Deva Sanskrit;
sah Cyrl Yakut; sat Olck Santali; sc srd Latn Sardinian; scn Latn Sicilian;
sco Latn Scots; sd snd Arab Sindhi; sdc Latn Sassarese Sardinian;
se sme Latn Northern Sami; ses Latn Koyraboro Senni; sg sag Latn Sango;
sgs Latn Samogitian; sh hbs Latn Serbo-Croatian; shn Mymr Shan; si sin Sinh Sinhala;
sk slk slo Latn Slovak; skr Arab Saraiki; sl slv Latn Slovenian;
sli Latn Lower Silesian; sm smo Latn Samoan; smn Latn Inari Sami; sn sna Latn Shona;
so som Latn Somali; son Latn Songhay; sq sqi alb als Latn Albanian;
sr srp Cyrl Serbian; ss ssw Latn Swati; st sot Latn Southern Sotho;
stq Latn Saterland Frisian; su sun Latn Sundanese; sv swe Latn Swedish;
sw swa swh Latn Swahili; swg Latn Swabian; szl Latn Silesian; szy Latn Sakizaya;
ta tam Taml Tamil; tay Latn Atayal; tcy Knda Tulu; tdd Tale Tai Nüa;
te tel Telu Telugu; tet Latn Tetum; tg tgk Cyrl Tajik; th tha Thai Thai;
ti tir Ethi Tigrinya; tk tuk Latn Turkmen; tl tgl fil Latn Tagalog; tly Latn Talysh;
tn tsn Latn Tswana; to ton Latn Tongan; tok Latn Toki Pona; tr tur Latn Turkish;
trs Latn Chicahuaxtla Triqui; ts tso Latn Tsonga; tsc Latn Tswa; tt tat Cyrl Tatar;
ttj Latn Tooro; tuv Latn Turkana; tw twi Latn Twi; ty tah Latn Tahitian;
tyv Cyrl Tuvinian; tzl Latn Talossan; udm Cyrl Udmurt; ug uig Arab Uyghur;
uk ukr Cyrl Ukrainian; ur urd Arab Urdu; uz uzb uzn Latn Uzbek; ve ven Latn Venda;
vec Latn Venetian; vep Latn Veps; vi vie Latn Vietnamese; vo vol Latn Volapük;
vro Latn Võro; wa wln Latn Walloon; war Latn Waray; wo wol Latn Wolof;
wuu Hans Wu Chinese; xal Cyrl Kalmyk; xh xho Latn Xhosa; xmf Geor Mingrelian;
xog Latn Soga; yi yid ydd ji Hebr Yiddish; yo yor Latn Yoruba;
yue zh-yue Hant Cantonese; za zha Latn Zhuang; zh zho chi cmn Hans Chinese;
zu zul Latn Zulu
"""


def _parse_table(table: str) -> dict[str, Language]:
    """Reads the table above."""
    languages = {}
    for row in re.split(r";\s", table.strip()):
        words = row.split()
        at = next(i for i, w in enumerate(words) if re.fullmatch("[A-Z][a-z]{3}", w))
        code, aliases = words[0], tuple(words[1:at])
        languages[code] = Language(code, " ".join(words[at + 1 :]), words[at], aliases)
    return languages


LANGUAGES: Mapping[str, Language] = MappingProxyType(_parse_table(_TABLE))
"""Every language of the table by its canonical code."""

# The 22 languages of the eighth schedule of the constitution of India.
INDIAN_LANGUAGES = (
    *("as", "bn", "brx", "doi", "gu", "hi", "kn", "kok", "ks", "mai", "ml"),
    *("mni", "mr", "ne", "or", "pa", "sa", "sat", "sd", "ta", "te", "ur"),
)

_CANONICAL = {
    spelling: language.code
    for language in LANGUAGES.values()
    for spelling in (language.code, *language.aliases)
}
# "mon" is Mongolian, although a language is called Mon: codes go before names.
_BY_NAME = {language.name.lower(): language.code for language in LANGUAGES.values()}

# A script, where it is not the usual one, is told by a region or, in gettext's
# locale names (sr@latin, uz@Cyrl), by a modifier.
_SCRIPT_OF_REGION = {
    ("zh", "tw"): "Hant",
    ("zh", "hk"): "Hant",
    ("zh", "mo"): "Hant",
    ("pa", "pk"): "Arab",
}
_SCRIPT_OF_MODIFIER = {
    "arabic": "Arab",
    "cyrillic": "Cyrl",
    "devanagari": "Deva",
    "iqtelif": "Latn",
    "latin": "Latn",
    **{language.script.lower(): language.script for language in LANGUAGES.values()},
}
_SAME_SCRIPT = {"Hang": "Kore", "Hira": "Jpan", "Kana": "Jpan"}


def language_code(code: str, *, strict: bool = False) -> str:
    """Turns any common code of a language into its canonical one.

    ISO 639-1 and 639-3 codes, those of LASER, FLORES (`hin_Deva`), gettext
    (`sr@latin`) and BCP 47 are understood, and English names. Regions and variants
    are dropped (`pt_BR`, `es-419`); a script stays where it is not the language's
    usual one.

    Args:
        code: a code or an English name, in any case.
        strict: whether a language that the table does not have is an error; else its
            code comes back in normal form.

    Returns:
        ISO 639-1 where it exists, else ISO 639-3, with a script suffix such as
        `zh-Hant` where needed.

    Raises:
        ValueError: `code` has not the form of a code, or is unknown and `strict`.

    Example:
        >>> [language_code(c) for c in ("hin", "hin_Deva", "cmn", "zho-CN", "zh_TW")]
        ['hi', 'hi', 'zh', 'zh', 'zh-Hant']
        >>> language_code("sr@latin"), language_code("Tamil"), language_code("pt-BR")
        ('sr-Latn', 'ta', 'pt')
    """
    text = code.strip().lower() if isinstance(code, str) else ""
    if text in _CANONICAL:
        return _CANONICAL[text]
    if text in _BY_NAME:
        return _BY_NAME[text]
    form = re.fullmatch(
        r"(?P<language>[a-z]{2,3})(?P<rest>([-_][a-z0-9]{2,8})*)"
        r"(\.[a-z0-9-]+)?(@(?P<modifier>[a-z]+))?",
        text,
    )
    if form is None:
        raise ValueError(
            f"a language must be a code such as 'hi', 'hin' or 'zh-Hant', or an "
            f"English name.{_close_matches(text)} Received: {code!r}"
        )
    parts = [form["language"], *re.findall("[a-z0-9]+", form["rest"])]
    # Longest first: zh-min-nan is no Chinese of a region.
    for size in range(len(parts), 0, -1):
        language = _CANONICAL.get("-".join(parts[:size]))
        if language is not None:
            break
    else:
        if strict:
            raise ValueError(
                f"unknown language code.{_close_matches(text)} Received: {code!r}"
            )
        language, size = parts[0], 1
    script = _SCRIPT_OF_MODIFIER.get(form["modifier"])
    for part in parts[size:]:
        if re.fullmatch("[a-z]{4}", part):
            script = part.title()
            break
        script = _SCRIPT_OF_REGION.get((language, part), script)
    script = _SAME_SCRIPT.get(script, script) if script else None
    known = LANGUAGES.get(language)
    if script is None or (known is not None and script == known.script):
        return language
    return f"{language}-{script}"


def language_name(code: str) -> str:
    """Gives the English name of a language, or its code where none is known.

    Args:
        code: any code that `language_code` takes.

    Returns:
        The name, with the script where the code has one.

    Raises:
        ValueError: `code` has not the form of a code.

    Example:
        >>> language_name("hin"), language_name("zh-TW"), language_name("xyz")
        ('Hindi', 'Chinese (Hant)', 'xyz')
    """
    canonical = language_code(code)
    if canonical in LANGUAGES:
        return LANGUAGES[canonical].name
    language, _, script = canonical.rpartition("-")
    if language in LANGUAGES:
        return f"{LANGUAGES[language].name} ({script})"
    return canonical


def _close_matches(text: str) -> str:
    """Says which codes and names look like `text`, as a sentence with a space."""
    spellings = {**_BY_NAME, **_CANONICAL}
    close = difflib.get_close_matches(text, spellings, n=3, cutoff=0.6)
    if not close:
        return ""
    found = ", ".join(
        f"{spellings[c]!r} ({LANGUAGES[spellings[c]].name})" for c in close
    )
    return f" Close to it: {found}."
