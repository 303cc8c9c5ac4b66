package machine

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/micavm/mica/internal/usercontext"
)

const mask = "********"

// secretsOf lists the words of a context that may be secret: the values of keys
// that say so, accounts' passwords, and whatever looks like a key, a token or a
// hash. It rather lists too many than too few: what is masked in a bundle can
// be asked for, what was sent cannot be taken back.
func secretsOf(context []byte) []string {
	texts := []string{string(context)}
	if c, err := usercontext.Parse("context", context); err == nil {
		texts = append(texts, string(c.Text))
		for _, part := range c.Parts {
			texts = append(texts, string(part.Data))
		}
	}
	found := map[string]bool{}
	for _, text := range texts {
		armoured := false
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "-----") {
				armoured = strings.HasPrefix(line, "-----BEGIN")
				continue
			}
			for _, word := range secretWords(line, armoured) {
				found[word] = true
			}
		}
	}
	var all []string
	for word := range found {
		all = append(all, word)
	}
	slices.SortFunc(all, func(a, b string) int { // the longest first: one may be a part of another
		return cmp.Or(cmp.Compare(len(b), len(a)), strings.Compare(a, b))
	})
	return all
}

// A key whose value is secret, in INI, YAML, shell or JSON.
var secretKey = regexp.MustCompile(`(?i)(pass|passwd|password|secret|token|credential|private|api_?key|auth|users|chpasswd|cookie|proxy|pin\b)`)

// shortest is the length below which a word is masked only under a key that
// says it is secret; notWord is that below which masking would garble the text.
const (
	shortest = 8
	notWord  = 3
)

func secretWords(line string, armoured bool) []string {
	key, value, hasKey := strings.Cut(line, "=")
	if k, v, ok := strings.Cut(line, ":"); ok && (!hasKey || len(k) < len(key)) {
		key, value, hasKey = k, v, true
	}
	secret := armoured || hasKey && secretKey.MatchString(key)
	if !secret || armoured {
		value = line
	}
	var words []string
	if secret && len(strings.TrimSpace(value)) >= notWord { // a pass phrase has blanks
		words = append(words, strings.Trim(strings.TrimSpace(value), `"'`))
	}
	for _, word := range strings.FieldsFunc(value, func(r rune) bool {
		return unicode.IsSpace(r) || strings.ContainsRune(`"',;:=()[]{}<>@|&`+"`", r)
	}) {
		if secret && len(word) >= notWord || len(word) >= shortest && random(word) {
			words = append(words, word)
		}
	}
	return words
}

// random reports whether a word looks made by chance rather than by a person:
// digits among letters, or the signs of base64 and of crypt(3).
func random(word string) bool {
	var digit, letter, sign bool
	for _, r := range word {
		switch {
		case unicode.IsDigit(r):
			digit = true
		case unicode.IsLetter(r):
			letter = true
		case strings.ContainsRune("$+!#%^&*?", r):
			sign = true
		}
	}
	return letter && digit || sign
}

// masker replaces the secrets of a context wherever they stand.
func masker(context []byte) *strings.Replacer {
	var pairs []string
	for _, word := range secretsOf(context) {
		pairs = append(pairs, word, mask)
	}
	return strings.NewReplacer(pairs...)
}
