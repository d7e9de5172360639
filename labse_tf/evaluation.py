"""Measures an encoder as the paper does: translations must be nearest neighbours.

`encode`, everywhere in this file, is any callable from a list of strings to an
`(n, D)` matrix: a model's method, a SavedModel, another library's model. Nothing
here needs TensorFlow.

The file also holds the one table of language codes of the package, and the groups
of languages over which the paper averages.

Shapes: N rows of the first matrix, M rows of the second, D dimensions.

References:
    - Feng et al., "Language-agnostic BERT Sentence Embedding",
      https://arxiv.org/abs/2007.01852
    - Artetxe and Schwenk, "Massively Multilingual Sentence Embeddings for Zero-Shot
      Cross-Lingual Transfer and Beyond" (LASER), https://arxiv.org/abs/1812.10464
"""

from __future__ import annotations

import codecs
import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

Encoder = Callable[[list[str]], Any]

# === Languages ===


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


# === Tatoeba ===

# 14: the languages of XNLI without English. 36: those of XTREME's Tatoeba task.
# 112: all files of LASER's release. The paper's group of 82 is left out on purpose:
# no source at hand lists its languages, and a guessed list would give a number that
# looks comparable and is not.
TATOEBA_GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "14": tuple("ar bg de el es fr hi ru sw th tr ur vi zh".split()),
        "36": tuple(
            "af ar bg bn de el es et eu fa fi fr he hi hu id it ja jv ka kk ko ml mr "
            "nl pt ru sw ta te th tl tr ur vi zh".split()
        ),
        "112": tuple(
            "af am ang ar arq arz ast awa az be bn ber bs br bg ca cbk ceb ch cs kzj "
            "zh kw csb cy da de dsb dtp el eo et eu fo fi fr fy gd ga gl gsw he hi hr "
            "hsb hu hy io ie ia id is it jv ja kab ka kk km ko ku la lfn lt lv ml mr "
            "max mhr mk mn ms nds nl nn no nov oc orv pam fa pms pl pt ro ru sk sl es "
            "sq sr sv swg sw ta tt te tl th tk tr tzl ug uk ur uz vi war wuu xh yi "
            "yue".split()
        ),
    }
)

# The paper's LaBSE, to be printed beside our own numbers.
TATOEBA_PUBLISHED: Mapping[str, float] = MappingProxyType(
    {"14": 0.953, "36": 0.950, "112": 0.837}
)

_TATOEBA_FILE = re.compile(r"tatoeba\.([a-z]{2,3})-eng\.([a-z]{2,3})")


class GroupMean(NamedTuple):
    """Mean accuracy over the languages of a group that were measured.

    Attributes:
        mean: 0 to 1; None where no language of the group was measured.
        present: how many languages of the group were measured.
        size: how many languages the group has. Only a mean with `present == size`
            compares with a published one.
    """

    mean: float | None
    present: int
    size: int


@dataclass(frozen=True)
class TatoebaResult:
    """Accuracy on Tatoeba a language, 0 to 1.

    Attributes:
        forward: share of the sentences of a language whose nearest English sentence
            is their translation (XX -> en), by canonical code.
        backward: the same for the English sentences (en -> XX).
        counts: number of sentence pairs.
    """

    forward: dict[str, float]
    backward: dict[str, float]
    counts: dict[str, int]

    @property
    def accuracy(self) -> dict[str, float]:
        """Mean of both directions, by canonical code."""
        return {
            code: (forward + self.backward[code]) / 2
            for code, forward in self.forward.items()
        }

    @property
    def mean_accuracy(self) -> float:
        """Mean over all measured languages, each with the same weight."""
        return float(np.mean(list(self.accuracy.values())))

    @property
    def group_means(self) -> dict[str, GroupMean]:
        """Means over the groups of 14, 36 and 112 languages."""
        accuracy = self.accuracy
        means = {}
        for name, group in TATOEBA_GROUPS.items():
            present = [accuracy[code] for code in group if code in accuracy]
            mean = float(np.mean(present)) if present else None
            means[name] = GroupMean(mean, len(present), len(group))
        return means

    def table(self) -> str:
        """Writes the result as text, per cent, best language first."""
        codes = _best_first(self.accuracy)
        names = [language_name(code) for code in codes]
        width = max(map(len, (*names, "36 languages of the paper")))
        head = f"{'code':<9}{'language':<{width}}  pairs  XX->en  en->XX    mean"
        lines = [head, "-" * len(head)]
        for code, name in zip(codes, names, strict=True):
            forward, backward = self.forward[code], self.backward[code]
            lines.append(
                f"{code:<9}{name:<{width}}{self.counts[code]:7d}{forward:8.1%}"
                f"{backward:8.1%}{self.accuracy[code]:8.1%}".replace("%", " ")
            )
        lines.append("-" * len(head))
        pairs = sum(self.counts.values())
        title = f"mean of {len(codes)} language" + ("s" if len(codes) > 1 else "")
        means = (
            float(np.mean(list(self.forward.values()))),
            float(np.mean(list(self.backward.values()))),
            self.mean_accuracy,
        )
        row = "".join(f"{mean:8.1%}" for mean in means).replace("%", " ")
        lines.append(f"{title:<{9 + width}}{pairs:7d}{row}")
        for name, (mean, present, size) in self.group_means.items():
            if mean is None:
                continue
            if present == size:
                title = f"{size} languages of the paper"
                note = f"(LaBSE in the paper: {100 * TATOEBA_PUBLISHED[name]:.1f})"
            else:
                title = f"{present} of the paper's {size}"
                note = "(incomplete: no comparison)"
            value = f"{mean:8.1%}".replace("%", " ")
            lines.append(f"{title:<{9 + width}}{'':23}{value} {note}")
        return "\n".join(line.rstrip() for line in lines)

    def to_dict(self) -> dict[str, Any]:
        """Gives the result as what `json.dump` takes.

        Returns:
            `{"task": "tatoeba", "mean_accuracy": float, "groups": {name: {"mean",
            "present", "size"}}, "languages": {code: {"name", "pairs", "forward",
            "backward", "accuracy"}}}`.
        """
        return {
            "task": "tatoeba",
            "mean_accuracy": self.mean_accuracy,
            "groups": {name: m._asdict() for name, m in self.group_means.items()},
            "languages": {
                code: {
                    "name": language_name(code),
                    "pairs": self.counts[code],
                    "forward": self.forward[code],
                    "backward": self.backward[code],
                    "accuracy": accuracy,
                }
                for code, accuracy in self.accuracy.items()
            },
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TatoebaResult:
        """Makes a result from what `to_dict` gave.

        Args:
            values: the dict, from JSON for instance.

        Returns:
            The result.

        Raises:
            ValueError: `values` does not come from `to_dict`.
        """
        if values.get("task") != "tatoeba":
            raise ValueError(
                "values must come from TatoebaResult.to_dict and have the task "
                f"'tatoeba'. Received: task={values.get('task')!r}"
            )
        rows = values["languages"]
        return cls(
            forward={code: row["forward"] for code, row in rows.items()},
            backward={code: row["backward"] for code, row in rows.items()},
            counts={code: row["pairs"] for code, row in rows.items()},
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws a horizontal bar a language, best on top.

        Args:
            path: the PNG file to write.

        Raises:
            ImportError: matplotlib is not installed.
            OSError: the file cannot be written.
        """
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError(
                "a plot needs matplotlib: pip install 'labse-tf[plots]'"
            ) from error
        path = Path(path)
        accuracy = self.accuracy
        codes = _best_first(accuracy)
        bars = [100 * accuracy[code] for code in codes]
        rows = range(len(codes))
        # A figure without pyplot: no window system and no state shared with others.
        figure = Figure(figsize=(8, 1.3 + 0.19 * len(codes)), dpi=110)
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.barh(rows, bars, height=0.72, color="#9ecae1", label="mean")
        for values, marker, label in (
            (self.forward, ">", "XX to en"),
            (self.backward, "<", "en to XX"),
        ):
            axes.scatter(
                [100 * values[code] for code in codes],
                rows,
                s=9,
                marker=marker,
                color="#08519c" if marker == ">" else "#e6550d",
                label=label,
                zorder=3,
                clip_on=False,
            )
        for row, value in zip(rows, bars, strict=True):
            axes.text(101.5, row, f"{value:.1f}", va="center", fontsize=7)
        labels = [f"{language_name(code)}  {code}" for code in codes]
        axes.set_yticks(rows, labels=labels, fontsize=7)
        axes.set_ylim(len(codes) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.set_xlabel("accuracy, per cent", fontsize=8)
        axes.tick_params(axis="x", labelsize=7)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        count = f"{len(codes)} language" + ("s" if len(codes) > 1 else "")
        axes.set_title(
            f"Tatoeba, mean accuracy {100 * self.mean_accuracy:.1f} over {count}",
            fontsize=10,
            pad=22,
        )
        axes.legend(
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            bbox_transform=axes.transAxes,
            ncol=3,
            fontsize=7,
            frameon=False,
            borderaxespad=0.2,
        )
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            figure.savefig(unfinished, format="png", bbox_inches="tight")
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)


def tatoeba(
    encode: Encoder,
    folder: str | os.PathLike[str],
    languages: str | Iterable[str] | None = None,
    *,
    block_size: int = 1024,
    progress: Callable[[str, int, int], None] | None = None,
) -> TatoebaResult:
    """Measures how often a sentence's nearest neighbour is its translation.

    The folder has LASER's layout: `tatoeba.XXX-eng.XXX` and `tatoeba.XXX-eng.eng`,
    one sentence a line, line i of one file the translation of line i of the other.
    The neighbour is by cosine, among the sentences of the same pair of files; for
    ties see `translation_accuracy`. Each distinct sentence is encoded once, also
    where many languages translate the same English sentence.

    Args:
        encode: from a list of strings to `(n, D)`; the rows need not be unit vectors.
        folder: where the files are.
        languages: codes (any spelling), or "14", "36" or "112" for a group of the
            paper; all languages of the folder where None.
        block_size: rows that are compared at a time; it bounds memory and does not
            change the result.
        progress: called after each language with its code, the number of languages
            done and the number of all.

    Returns:
        Accuracy both ways a language, in the order of the request (of the codes where
        all are measured), with means.

    Raises:
        OSError: the folder or a file cannot be read.
        ValueError: a language is not there or has one file only, the files of a
            language differ in length or are not UTF-8, or `encode` gives anything but
            one finite row a sentence.

    Example:
        >>> result = tatoeba(model.encode, "tatoeba", ["hi", "ta"])  # doctest: +SKIP
        >>> result.mean_accuracy  # doctest: +SKIP
        0.914

    References:
        - Artetxe and Schwenk, https://arxiv.org/abs/1812.10464
    """
    folder = Path(folder)
    files = _tatoeba_files(folder)
    if languages is None:
        codes = sorted(files)
    else:
        if isinstance(languages, str):
            languages = TATOEBA_GROUPS.get(languages, (languages,))
        codes = list(dict.fromkeys(language_code(code) for code in languages))
        if not codes:
            raise ValueError("languages must name at least one. Received: none")
        missing = [code for code in codes if code not in files]
        if missing:
            raise ValueError(
                f"languages that {folder} has no files of; it has "
                f"{' '.join(sorted(files))}. Received: {' '.join(missing)}"
            )
    # All files are read before the first sentence is encoded, which may take hours.
    pairs = {code: _read_translations(*files[code]) for code in codes}

    english = _DistinctRows(encode)
    forward, backward, counts = {}, {}, {}
    for done, code in enumerate(codes, 1):
        source, target = pairs[code]
        source_vectors = _DistinctRows(encode)(source, what=f"{code} sentences")
        target_vectors = english(target, what=f"English sentences of {code}")
        if source_vectors.shape[1] != target_vectors.shape[1]:
            raise ValueError(
                "encode must give vectors of one length. Received: "
                f"{source_vectors.shape[1]} for {code} and {target_vectors.shape[1]} "
                "for English"
            )
        forward[code], backward[code] = translation_accuracy(
            source_vectors, target_vectors, block_size=block_size
        )
        counts[code] = len(source)
        if progress is not None:
            progress(code, done, len(codes))
    return TatoebaResult(forward, backward, counts)


def _best_first(accuracy: Mapping[str, float]) -> list[str]:
    """Sorts codes by accuracy, those of the same one by code."""
    return sorted(accuracy, key=lambda code: (-accuracy[code], code))


def _tatoeba_files(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Finds the two files of each language, by canonical code."""
    sides: dict[str, dict[str, Path]] = {}
    # os.listdir names the folder in the error where there is none.
    for name in sorted(os.listdir(folder)):
        match = _TATOEBA_FILE.fullmatch(name)
        if match and match[2] in (match[1], "eng"):
            side = "eng" if match[2] == "eng" else "other"
            sides.setdefault(match[1], {})[side] = folder / name
    if not sides:
        raise ValueError(
            "folder must have files named tatoeba.XXX-eng.XXX and tatoeba.XXX-eng.eng. "
            f"Received: {folder}"
        )
    files: dict[str, tuple[Path, Path]] = {}
    for spelling, found in sides.items():
        if len(found) < 2:
            missing = spelling if "eng" in found else "eng"
            raise ValueError(
                f"{folder / f'tatoeba.{spelling}-eng.{missing}'} must be beside its "
                f"other half. Received: only {next(iter(found.values())).name}"
            )
        code = language_code(spelling)
        if code in files:
            raise ValueError(
                f"one pair of files a language is expected in {folder}. Received: "
                f"{files[code][0].name} and {found['other'].name}, both of {code!r}"
            )
        files[code] = (found["other"], found["eng"])
    return files


def _read_translations(source: Path, target: Path) -> tuple[list[str], list[str]]:
    """Reads two files whose lines are translations of each other."""
    source_lines, target_lines = _read_lines(source), _read_lines(target)
    if len(source_lines) != len(target_lines):
        raise ValueError(
            f"{source} and {target} must have the same number of lines. Received: "
            f"{len(source_lines)} and {len(target_lines)}"
        )
    return source_lines, target_lines


def _read_lines(path: Path) -> list[str]:
    """Reads the lines of a text file that has at least one."""
    lines = []
    # By bytes: str.splitlines would also split at U+2028 or U+0085 inside a sentence.
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8).removesuffix(b"\n")
    for number, line in enumerate(content.split(b"\n") if content else (), 1):
        try:
            lines.append(line.removesuffix(b"\r").decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}:{number}: a line must be UTF-8. Received: {error}"
            ) from None
    if not lines:
        raise ValueError(f"{path}: a line at least is expected. Received: empty file")
    return lines


class _DistinctRows:
    """Encodes each distinct sentence once, over all calls."""

    def __init__(self, encode: Encoder) -> None:
        self._encode = encode
        self._vectors: dict[str, np.ndarray] = {}

    def __call__(self, sentences: Sequence[str], *, what: str) -> np.ndarray:
        """Gives a row a sentence, `(N, D)`; `what` names them in errors."""
        new = [s for s in dict.fromkeys(sentences) if s not in self._vectors]
        if new:
            vectors = _as_vectors(self._encode(new), rows=len(new), what=what)
            known = next(iter(self._vectors.values()), vectors[0])
            if len(known) != vectors.shape[1]:
                raise ValueError(
                    "encode must give vectors of one length. Received: "
                    f"{len(known)}, and {vectors.shape[1]} for {what}"
                )
            self._vectors.update(zip(new, vectors, strict=True))
        return np.stack([self._vectors[sentence] for sentence in sentences])


def _as_vectors(values: Any, *, rows: int | None, what: str) -> np.ndarray:
    """Checks a matrix of vectors and makes it `(N, D)` float32."""
    try:
        vectors = np.asarray(values)
        vectors = vectors.astype(np.float32, copy=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the vectors of {what} must be a matrix of numbers. Received: "
            f"{type(values).__name__} ({error})"
        ) from error
    expected = "n" if rows is None else rows
    if vectors.ndim != 2 or (rows is not None and len(vectors) != rows):
        raise ValueError(
            f"the vectors of {what} must have the shape ({expected}, D). Received: "
            f"{vectors.shape}"
        )
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise ValueError(
            f"the vectors of {what} must be finite. Received: NaN or infinity in "
            f"{len(bad)} of {len(vectors)} rows, the first is row {bad[0]}"
        )
    return vectors


# === Nearest neighbours ===


def translation_accuracy(
    source_vectors: Any, target_vectors: Any, *, block_size: int = 1024
) -> tuple[float, float]:
    """Measures how often the nearest neighbour of a row is the same row.

    Row i of one matrix is the translation of row i of the other. Vectors are compared
    by cosine, exactly (every pair). Where several candidates are equally near, that
    with the lowest row counts as the neighbour, so of several copies of one sentence
    only the first can be right. Cosines are compared as float32; a vector of zeros has
    cosine 0 to all.

    Args:
        source_vectors: `(N, D)`, of any length.
        target_vectors: `(N, D)`.
        block_size: rows that are compared at a time; it bounds memory, and does not
            change the result.

    Returns:
        The share of source rows whose nearest target is their translation, and that
        of target rows whose nearest source is.

    Raises:
        ValueError: a matrix has no rows or is not finite, or the shapes differ.

    Example:
        >>> translation_accuracy([[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.1], [3.0, 1.0]])
        (1.0, 0.5)
    """
    source = _as_vectors(source_vectors, rows=None, what="source_vectors")
    target = _as_vectors(target_vectors, rows=None, what="target_vectors")
    if source.shape != target.shape or not source.size:
        raise ValueError(
            "source_vectors and target_vectors must have the same shape, with one row "
            f"at least. Received: {source.shape} and {target.shape}"
        )
    if block_size < 1:
        raise ValueError(f"block_size must be 1 or more. Received: {block_size}")
    rows = np.arange(len(source))
    nearest_target, nearest_source = _nearest(source, target, block_size)
    return (
        float(np.mean(nearest_target == rows)),
        float(np.mean(nearest_source == rows)),
    )


def _nearest(
    source: np.ndarray, target: np.ndarray, block_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the nearest target of each source row, and the other way, by cosine."""
    best = [np.full(len(m), -np.inf, np.float32) for m in (source, target)]
    nearest = [np.zeros(len(m), np.int64) for m in (source, target)]
    for i in range(0, len(source), block_size):
        source_block = _unit_rows(source[i : i + block_size])
        for j in range(0, len(target), block_size):
            target_block = _unit_rows(target[j : j + block_size])
            # The last bits of a float32 product depend on its place in the block, and
            # would break ties at random. Rounded from float64 they do not.
            cosine = (source_block @ target_block.T).astype(np.float32)
            for side, axis, at, other in ((0, 1, i, j), (1, 0, j, i)):
                span = slice(at, at + cosine.shape[side])
                value, index = cosine.max(axis), cosine.argmax(axis) + other
                # `>`: of equals the one seen first, which has the lowest row, stays.
                nearer = value > best[side][span]
                best[side][span] = np.where(nearer, value, best[side][span])
                nearest[side][span] = np.where(nearer, index, nearest[side][span])
    return nearest[0], nearest[1]


def _unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Divides rows by their lengths, in float64; rows of zeros stay."""
    vectors = vectors.astype(np.float64)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length == 0, 1, length)
