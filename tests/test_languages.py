"""Languages: one code for all spellings, and everything is keyed by it."""

from __future__ import annotations

import json

import pytest

from helpers.errors import raises
from labse_tf import cli, data
from labse_tf.evaluation import retrieval, xsim
from labse_tf.languages import (
    INDIAN_LANGUAGES,
    LABSE_LANGUAGES,
    LANGUAGES,
    SCRIPTS,
    canonical_keys,
    is_english,
    is_language_code,
    language_code,
    language_name,
    scripts_of,
    without_script,
)
from labse_tf.tokenizers import learn_vocabulary

# === Codes ===


@pytest.mark.parametrize(
    ("spellings", "canonical"),
    [
        ("hi hin hin_Deva HI Hindi hi-IN hi_IN.UTF-8", "hi"),
        ("zh zho chi cmn zho-CN zh_CN zh-Hans cmn_Hans zh-Hans-CN Chinese", "zh"),
        ("zh-Hant zh_TW zho_Hant zh-Hant-HK zh-HK cmn-Hant", "zh-Hant"),
        ("ar ara arb arb_Arab", "ar"),
        ("ar-Latn arb_Latn", "ar-Latn"),
        ("ms msa zsm zsm_Latn", "ms"),
        ("sw swa swh", "sw"),
        ("lv lav lvs", "lv"),
        ("fa fas pes per pes_Arab", "fa"),
        ("prs prs_Arab", "prs"),
        ("no nb nob nor nb_NO", "no"),
        ("nn nno", "nn"),
        ("or ori ory ory_Orya", "or"),
        ("ko kor kor_Hang", "ko"),
        ("he heb iw", "he"),
        ("pt pt-BR pt_PT por", "pt"),
        ("es es-419 es_AR spa", "es"),
        ("ti ti_ER ti_ET tir", "ti"),
        ("ca ca@valencia ca-valencia cat", "ca"),
        ("sr sr_Cyrl srp", "sr"),
        ("sr-Latn sr@latin sr_Latn sr-Latn-Latn sr_RS@latin srp_Latn", "sr-Latn"),
        ("uz-Cyrl uz@cyrillic uz@Cyrl uz_UZ@cyrillic", "uz-Cyrl"),
        ("pa pan pan_Guru pa-IN", "pa"),
        ("pa-Arab pa_PK", "pa-Arab"),
        ("mni mni_Mtei", "mni"),
        ("mni-Beng mni_Beng", "mni-Beng"),
        ("nan zh-min-nan", "nan"),
        ("nan-Latn zh-min-nan-Latn", "nan-Latn"),
        ("be bel be-tarask be@tarask", "be"),
        ("be-Latn be@latin", "be-Latn"),
        ("nds", "nds"),
        ("kzj", "kzj"),
        ("dtp", "dtp"),
        ("mon mn khk", "mn"),
        ("mnw", "mnw"),
    ],
)
def test_spellings_of_one_language(spellings, canonical):
    for spelling in spellings.split():
        assert language_code(spelling) == canonical, spelling
        assert language_code(spelling, strict=True) == canonical, spelling


def test_regions_and_variants_are_dropped_and_encodings_too():
    for spelling in "de_DE.UTF-8 de_DE@euro de_DE.UTF-8@euro de-CH-1996 DE".split():
        assert language_code(spelling) == "de", spelling
    assert language_code("sr_RS.UTF-8@latin") == "sr-Latn"
    assert language_code("ady-Cyrl") == "ady-Cyrl"
    assert language_code("und") == "und"


def test_canonical_codes_stay():
    for code, language in LANGUAGES.items():
        assert language_code(code) == code
        assert language_code(f"{code}-{language.script}") == code
        assert language_code(language.name) in LANGUAGES
        for alias in language.aliases:
            assert language_code(alias) == code


def test_no_spelling_has_two_meanings():
    spellings = [s for x in LANGUAGES.values() for s in (x.code, *x.aliases)]
    assert len(spellings) == len(set(spellings))
    assert len({x.name for x in LANGUAGES.values()}) == len(LANGUAGES) > 300
    assert all(script in SCRIPTS for x in LANGUAGES.values() for script in x.scripts)


def test_unknown_codes_pass_in_normal_form_or_raise():
    assert language_code("XQX") == "xqx"
    assert language_code("xqx_deva_IN") == "xqx-Deva"
    with raises(ValueError, received="'xqx'"):
        language_code("xqx", strict=True)
    with raises(ValueError, "'hi'"):
        language_code("hindii", strict=False)


@pytest.mark.parametrize("bad", ["", " ", "h", "C", "x-klingon", "../hi", "hi.tsv/x"])
def test_what_is_no_code_raises(bad):
    with raises(ValueError, received=repr(bad)):
        language_code(bad)


def test_names():
    assert language_name("hin") == "Hindi"
    assert language_name("sr@latin") == "Serbian (Latn)"
    assert language_name("xqx") == "xqx"


def test_groups():
    assert len(set(INDIAN_LANGUAGES)) == 22 and set(INDIAN_LANGUAGES) <= set(LANGUAGES)
    assert len(set(LABSE_LANGUAGES)) == 109 and set(LABSE_LANGUAGES) <= set(LANGUAGES)


def test_what_has_the_form_of_a_code():
    for text in "hi HI hin zh_Hant de_DE.UTF-8@euro uz@Cyrl xqx xqx-Deva-IN".split():
        assert is_language_code(text), text
        assert is_language_code(text, known=True) == (text[:3] != "xqx")
    for text in ("", "h", "Hindi", "data", "hi/../x", " hi", "en-hi.tsv.gz "):
        assert not is_language_code(text), text


def test_a_language_without_its_script():
    codes = {"zh_TW": "zh", "hin": "hi", "map-bms": "map-bms", "xqx-Deva": "xqx"}
    assert {code: without_script(code) for code in codes} == codes
    assert [c for c in ("en-GB", "eng", "en_Shaw", "ang", "hi") if is_english(c)] == [
        *("en-GB", "eng", "en_Shaw")
    ]


# === Scripts ===


def test_scripts_of_languages():
    assert scripts_of("ja") == {"Hani", "Hira", "Kana"}
    assert scripts_of("sr") == {"Cyrl", "Latn"}
    assert scripts_of("sr", usual=True) == {"Cyrl"}
    assert scripts_of("sr-Latn") == scripts_of("sr-Latn", usual=True) == {"Latn"}
    assert scripts_of("zh_TW") == {"Hani", "Bopo"}
    assert scripts_of("qqq") is scripts_of("not a code") is None
    assert scripts_of("sr-Zzzz") is None
    # every script of the table of languages has letters in the table of scripts
    assert [code for code in LANGUAGES if scripts_of(code) is None] == []


# === What is keyed by the code ===


def pair_files(folder, **texts):
    """`en-XX.tsv` for each language, with the same English on both sides of a tab."""
    for code, words in texts.items():
        rows = "".join(f"{word}\t{word} {code}\n" for word in words.split())
        folder.joinpath(f"en-{code.replace('_', '-')}.tsv").write_text(rows)
    return folder


def test_a_corpus_has_one_language_for_all_its_spellings(tmp_path):
    corpus = data.load_pairs(pair_files(tmp_path, hi="a b", hin="c", hi_IN="d", ta="e"))
    assert corpus.counts == {"hi": 4, "ta": 1} and corpus.languages == ["hi", "ta"]
    assert corpus.select(["hin"]).counts == {"hi": 4}
    assert len(corpus.pairs("hi-IN", range(4))[0]) == 4
    loaded = data.load_pairs(tmp_path, languages=["hin_Deva"])
    assert loaded.counts == {"hi": 4}
    capped = data.load_pairs(tmp_path, max_pairs_per_language=3)
    assert capped.counts == {"hi": 3, "ta": 1}
    single = data.load_sentences(tmp_path, languages=["Hindi"])
    assert single.counts == {"hi": 4}


def test_a_corpus_from_pairs_in_memory_has_canonical_codes():
    pairs = [data.SentencePair("a", "b", code) for code in ("hin", "hi", "pt-BR")]
    assert data.ParallelCorpus(pairs).counts == {"hi": 2, "pt": 1}
    sentences = [("hi-IN", "a"), ("hi", "a"), ("hin", "b"), ("zh_TW", "c"), ("zh", "c")]
    corpus = data.MonolingualCorpus(sentences)
    assert corpus.counts == {"hi": 2, "zh": 1, "zh-Hant": 1}


@pytest.mark.parametrize("ending", ["jsonl", "tmx"])
def test_one_file_with_two_spellings_of_a_language(tmp_path, ending):
    path = tmp_path / f"memory.{ending}"
    if ending == "jsonl":
        path.write_text(
            '{"en": "one", "hi": "ek"}\n'
            '{"en-GB": "two", "hi-IN": "do", "pt_BR": "dois"}'
        )
    else:
        path.write_text(
            '<tmx version="1.4"><header srclang="en"/><body>'
            '<tu><tuv xml:lang="en"><seg>one</seg></tuv>'
            '<tuv xml:lang="hi"><seg>ek</seg></tuv></tu>'
            '<tu><tuv xml:lang="en-GB"><seg>two</seg></tuv>'
            '<tuv xml:lang="hi-IN"><seg>do</seg></tuv>'
            '<tuv xml:lang="pt-BR"><seg>dois</seg></tuv></tu></body></tmx>'
        )
    assert data.load_pairs(path).counts == {"hi": 2, "pt": 1}
    assert data.load_pairs(path, languages=["hin"]).counts == {"hi": 2}


def test_duplicates_are_found_across_spellings_of_a_language():
    text = "Open the file once more", "फ़ाइल एक बार फिर खोलें"
    pairs = [data.SentencePair(*text, code) for code in ("hi", "hi-IN", "hin_Deva")]
    report = data.cleaning.new_report()
    assert list(data.clean_pairs(pairs, report=report)) == pairs[:1]
    assert report.kept == {"hi": 1} and report.by_rule()["duplicate"] == 2


def test_the_commands_see_one_language(tmp_path, capsys):
    files = pair_files(tmp_path, hi="a b", hin="c")
    paths = [str(path) for path in sorted(files.iterdir())]
    assert cli.main(["balance", *paths, "--json", str(tmp_path / "shares.json")]) == 0
    shares = json.loads((tmp_path / "shares.json").read_text())["languages"]
    assert list(shares) == ["hi"] and shares["hi"]["pairs"] == 3
    assert cli.main(["balance", *paths, "--languages", "hin"]) == 0
    assert "hin" not in capsys.readouterr().out
    # A translation that stands in two files of the language is a duplicate.
    text = "Open the file once more\tफ़ाइल एक बार फिर खोलें\n"
    for name in ("en-hi.tsv", "en-hi-IN.tsv"):
        (tmp_path / name).write_text(text, encoding="utf-8")
    paths = [str(tmp_path / name) for name in ("en-hi.tsv", "en-hi-IN.tsv")]
    assert cli.main(["clean", *paths, "--output", str(tmp_path / "clean")]) == 0
    assert data.load_pairs(tmp_path / "clean").counts == {"hi": 1}


def test_keys_become_canonical_and_none_is_lost():
    values = {"pt-BR": 1, "hin": 2, "ti_ER": 3, "ti": 4, "Hindi": 5}
    assert canonical_keys(values) == {
        **{"pt": 1, "hi": 2, "ti_ER": 3, "ti": 4},
        "Hindi": 5,
    }


def test_results_of_evaluation_have_canonical_codes():
    def encode(sentences):
        return [[len(text), 1.0] for text in sentences]

    pairs = {"hin": (["a", "bb"], ["c", "dd"]), "pt-BR": (["a"], ["c"])}
    result = retrieval(encode, pairs, pool={"eng": ["x"], "hi-IN": ["y"]}, trained="hi")
    assert list(result.accuracy) == ["hi", "pt"] and result.zero_shot == ("pt",)
    assert list(xsim(encode, pairs, margin="cosine").accuracy) == ["hi", "pt"]


def test_names_with_a_script_are_read_back():
    for code in ("zh-Hant", "sr-Latn", "mni-Beng", "hi"):
        assert language_code(language_name(code)) == code


def test_a_vocabulary_of_chosen_languages(tmp_path):
    files = sorted(pair_files(tmp_path, hi="sun", hin="moon", ta="rain").iterdir())
    tokens = learn_vocabulary(
        *(files, 200),
        reader=data.read_sentences,
        languages=["hin_Deva"],
        min_frequency=1,
        progress=False,
    )
    assert {"s", "m"} <= set(tokens) and "r" not in tokens
