package geneval

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

var refused = map[string]string{
	``:              "EOF",
	`{`:             "unexpected EOF",
	`[]`:            "cannot unmarshal",
	`{"tag":"x"}`:   `"prompt" is missing`,
	`{"prompt":""}`: `"tag" is missing`,
	`{"tag":"x","prompt":""}{"tag":"x","prompt":""}`:                                                              "more than one",
	`{"tag":"x","prompt":"","includes":[]}`:                                                                       "unknown field",
	`{"Tag":"x","prompt":""}`:                                                                                     `unknown field "Tag"`,
	`{"tag":"x","prompt":"","include":[{"Class":"car","count":1}]}`:                                               `unknown field "Class"`,
	`{"tag":"x","prompt":"","tag":"y"}`:                                                                           "twice",
	`{"tag":"x","prompt":"","include":[{"count":1}]}`:                                                             `"class" is missing`,
	`{"tag":"x","prompt":"","include":[{"class":"car"}]}`:                                                         `"count" is missing`,
	`{"tag":"x","prompt":"","include":[{"class":"car","count":-1}]}`:                                              "negative",
	`{"tag":"x","prompt":"","include":[{"class":"car","count":1.5}]}`:                                             "cannot unmarshal",
	`{"tag":"x","prompt":"","include":[{"class":"car","count":1,"color":"mauve"}]}`:                               `unknown colour "mauve"`,
	`{"tag":"x","prompt":"","include":[{"class":"car","count":1,"colour":"red"}]}`:                                "unknown field",
	`{"tag":"x","prompt":"","include":[{"class":"car","count":1,"position":["above"]}]}`:                          "1 parts",
	`{"tag":"x","prompt":"","include":[{"class":"car","count":1,"position":["above",0]}]}`:                        "no earlier clause",
	`{"tag":"x","prompt":"","include":[{"class":"a","count":1},{"class":"b","count":1,"position":["above",-1]}]}`: "no earlier clause",
	`{"tag":"x","prompt":"","include":[{"class":"a","count":1},{"class":"b","count":1,"position":["near",0]}]}`:   `unknown relation "near"`,
	`{"tag":"x","prompt":"","exclude":[{"class":"car","count":0}]}`:                                               "at least 1",
	`{"tag":"x","prompt":"","exclude":[{"class":"car","count":1,"color":"red"}]}`:                                 "not looked at",
	`{"tag":"x","prompt":"","exclude":[{"class":"car","count":1,"position":["above",0]}]}`:                        "no earlier clause",
	"{\"tag\":\"x\",\"prompt\":\"\xff\"}":                                                                         "UTF-8",
}

func TestParseMetadataRefuses(t *testing.T) {
	for text, part := range refused {
		if _, err := ParseMetadata([]byte(text)); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v, want %q", text, err, part)
		}
	}
}

// The dump keeps the order of keys, spells floats and non-ASCII as Python does, and does not mind line breaks.
func TestDump(t *testing.T) {
	text := "{\n \"prompt\": \"caf\u00e9 \U0001f600 a/b \\\"\",\n\"include\":[{\"count\":1,\"class\":\"car\"}],\"tag\":\"single_object\"}\n"
	m, err := ParseMetadata([]byte(text))
	want := `{"prompt": "caf\u00e9 \ud83d\ude00 a/b \"", "include": [{"count": 1, "class": "car"}], "tag": "single_object"}`
	if err != nil || m.Dump() != want {
		t.Errorf("%s, %v", m.Dump(), err)
	}
	again, err := json.Marshal(m)
	var back Metadata
	if err != nil || json.Unmarshal(again, &back) != nil || back.Prompt != m.Prompt || !reflect.DeepEqual(back.Include, m.Include) {
		t.Errorf("JSON round trip: %s, %v", again, err)
	}
}

func TestPythonFloat(t *testing.T) {
	for v, want := range map[float64]string{
		57: "57.0", float64(float32(.9)): "0.8999999761581421", 1e-4: "0.0001", 1e-5: "1e-05", 1.5e16: "1.5e+16", -0.25: "-0.25", 1e15: "1000000000000000.0",
	} {
		if got := pythonFloat(v); got != want {
			t.Errorf("%g: %s, want %s", v, got, want)
		}
	}
}

func TestOfficialData(t *testing.T) {
	for want, data := range map[string][]byte{
		"5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13": promptFile,
		"608f6a0e5c8ca1c7a92b818430141fe268c85b7930b50f4160f1d65893b5bacd": []byte(classFile),
	} {
		sum := sha256.Sum256(data)
		if got := hex.EncodeToString(sum[:]); got != want {
			t.Errorf("checksum %s, want %s", got, want)
		}
	}
	count := map[string]int{}
	for _, m := range Official() {
		count[m.Tag]++
	}
	want := map[string]int{SingleObject: 80, TwoObject: 99, Counting: 80, Colors: 94, Position: 100, ColorAttr: 100}
	if !reflect.DeepEqual(count, want) || len(Classes()) != 80 || len(officialKeys()) != 552 {
		t.Errorf("prompts %v, %d classes, %d keys", count, len(Classes()), len(officialKeys()))
	}
}

// The templates make all 553 official prompts again, text and metadata, from their metadata alone.
func TestTemplatesMakeOfficialPrompts(t *testing.T) {
	var build Templates
	for _, m := range Official() {
		var got Metadata
		a := m.Include[0]
		switch m.Tag {
		case SingleObject:
			got = build.Single(a.Class)
		case TwoObject:
			got = build.Two(a.Class, m.Include[1].Class)
		case Counting:
			got = build.Counting(a.Class, a.Count)
		case Colors:
			got = build.Colour(a.Color, a.Class)
		case Position:
			got = build.Position(m.Include[1].Class, m.Include[1].Relation, a.Class)
		case ColorAttr:
			got = build.Binding(a.Color, a.Class, m.Include[1].Color, m.Include[1].Class)
		}
		if got.Dump() != m.Dump() {
			t.Errorf("%s, want %s", got.Dump(), m.Dump())
		}
	}
}

func TestKey(t *testing.T) {
	var b Templates
	same := [][2]Metadata{
		{b.Two("cat", "dog"), b.Two("dog", "cat")},
		{b.Position("cat", LeftOf, "dog"), b.Position("dog", RightOf, "cat")},
		{b.Position("cat", Above, "dog"), b.Position("dog", Below, "cat")},
		{b.Binding("red", "cat", "blue", "dog"), b.Binding("blue", "dog", "red", "cat")},
	}
	for _, pair := range same {
		if x, y := mustKey(t, pair[0]), mustKey(t, pair[1]); x != y {
			t.Errorf("%q and %q ask for the same scene: %s, %s", pair[0].Prompt, pair[1].Prompt, x, y)
		}
	}
	different := []Metadata{
		b.Two("cat", "dog"), b.Position("cat", LeftOf, "dog"), b.Position("cat", RightOf, "dog"), b.Position("cat", Above, "dog"),
		b.Binding("red", "cat", "blue", "dog"), b.Binding("blue", "cat", "red", "dog"), b.Counting("cat", 2), b.Counting("cat", 3),
		b.Single("cat"), b.Colour("red", "cat"), b.Colour("blue", "cat"),
	}
	seen := map[string]string{}
	for _, m := range different {
		k := mustKey(t, m)
		if other, ok := seen[k]; ok {
			t.Errorf("%q and %q share the key %s", m.Prompt, other, k)
		}
		seen[k] = m.Prompt
	}
	for _, m := range []Metadata{{Tag: "custom"}, {Tag: TwoObject, Include: []Clause{{Class: "cat"}}}, {Tag: Position, Include: make([]Clause, 2)}} {
		if _, err := Key(m); err == nil {
			t.Errorf("key of %+v", m)
		}
	}
}

func mustKey(t *testing.T, m Metadata) string {
	t.Helper()
	k, err := Key(m)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func FuzzParseMetadata(f *testing.F) {
	for text := range refused {
		f.Add([]byte(text))
	}
	f.Add(bytes.SplitN(promptFile, []byte("\n"), 2)[0])
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := ParseMetadata(text)
		if err != nil {
			return
		}
		again, err := ParseMetadata([]byte(m.Dump()))
		if err != nil || again.Dump() != m.Dump() {
			t.Fatalf("%q: dump %s is read as %s, %v", text, m.Dump(), again.Dump(), err)
		}
	})
}
