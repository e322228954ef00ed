package experiment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// TableRow is one row of a table or one curve of a figure, in TABLE/ROW.yaml: a generator, a strategy with its judge, and
// N or several of them.
type TableRow struct {
	Table     string `yaml:"-" json:"table"`
	Name      string `yaml:"-" json:"name"` // of the file
	Title     string `yaml:"title" json:"title"`
	Generator string `yaml:"generator" json:"generator,omitempty"`
	Strategy  string `yaml:"strategy" json:"strategy,omitempty"` // name or name@judge
	N         int    `yaml:"n" json:"n,omitempty"`
	Ns        []int  `yaml:"ns" json:"ns,omitempty"`     // of a curve
	Most      int    `yaml:"most" json:"most,omitempty"` // selections a prompt at most, 0 for all that the bank has
	Paper     string `yaml:"paper" json:"paper,omitempty"`
	Absent    string `yaml:"absent" json:"absent,omitempty"`       // why nothing is run; the paper's numbers are printed
	Extension bool   `yaml:"extension" json:"extension,omitempty"` // not in the paper
}

// ID names the row: "table1/orm".
func (r TableRow) ID() string { return r.Table + "/" + r.Name }

// points are the measurements that the row is made of.
func (r TableRow) points() []point {
	if r.Absent != "" {
		return nil
	}
	ns := r.Ns
	if ns == nil {
		ns = []int{r.N}
	}
	if name, _, _ := strings.Cut(r.Strategy, "@"); name == "single" {
		ns = []int{1}
	}
	var out []point
	for _, n := range ns {
		out = append(out, point{r.Generator, r.Strategy, n, r.Most})
	}
	return out
}

// final is the point of the largest N, which stands for the row.
func (r TableRow) final() (point, bool) {
	all := r.points()
	if len(all) == 0 {
		return point{}, false
	}
	return all[len(all)-1], true
}

// PaperTable is a table or figure of the paper, in TABLE/table.yaml.
type PaperTable struct {
	Name     string     `yaml:"-" json:"name"`
	Title    string     `yaml:"title" json:"title"`
	Source   string     `yaml:"source" json:"source"`
	Note     string     `yaml:"note" json:"note,omitempty"`
	Curve    bool       `yaml:"curve" json:"curve,omitempty"`
	Baseline string     `yaml:"baseline" json:"baseline,omitempty"` // row that differences are taken from
	Order    []string   `yaml:"rows" json:"-"`
	Rows     []TableRow `yaml:"-" json:"rows"`
}

// TableNames are the tables and figures in the order of the paper; extensions come last.
func TableNames() []string {
	return []string{"table1", "table2", "table3", "table4", "table5", "fig3", "fig13", "fig14", "extra"}
}

// ReadTables reads tables with their rows from a folder of recipes. A row file that the table does not list, or a listed
// one that is not there, is an error.
func ReadTables(dir fs.FS, names []string) ([]PaperTable, error) {
	var out []PaperTable
	for _, name := range names {
		t := PaperTable{Name: name}
		if err := decodeStrict(dir, path.Join(name, "table.yaml"), &t); err != nil {
			return nil, err
		}
		files, err := fs.Glob(dir, name+"/*.yaml")
		if err != nil {
			return nil, fmt.Errorf("experiment: %w", err)
		}
		if len(files) != len(t.Order)+1 {
			return nil, fmt.Errorf("experiment: %w: %s/table.yaml lists %d rows, the folder holds %d", ErrRecipe, name, len(t.Order), len(files)-1)
		}
		for _, row := range t.Order {
			r := TableRow{Table: name, Name: row}
			file := path.Join(name, row+".yaml")
			if err := decodeStrict(dir, file, &r); err != nil {
				return nil, err
			}
			if err := r.check(t.Curve); err != nil {
				return nil, fmt.Errorf("experiment: %w %s: %w", ErrRecipe, file, err)
			}
			t.Rows = append(t.Rows, r)
		}
		out = append(out, t)
	}
	return out, nil
}

// LimitN cuts every row to at most n paths, for a quick look.
func LimitN(list []PaperTable, n int) {
	for _, t := range list {
		for i := range t.Rows {
			r := &t.Rows[i]
			r.N = min(r.N, n)
			for k := range r.Ns {
				r.Ns[k] = min(r.Ns[k], n)
			}
			r.Ns = slices.Compact(r.Ns)
		}
	}
}

// WithBaselines picks tables by name and adds, as tables of one row, the baselines that lie in others.
func WithBaselines(all []PaperTable, names []string) []PaperTable {
	var out []PaperTable
	var wanted []string
	for _, t := range all {
		if slices.Contains(names, t.Name) {
			out = append(out, t)
			wanted = append(wanted, t.Baseline)
		}
	}
	for _, t := range all {
		for _, r := range t.Rows {
			if !slices.Contains(names, t.Name) && slices.Contains(wanted, r.ID()) {
				out = append(out, PaperTable{Name: t.Name, Rows: []TableRow{r}})
			}
		}
	}
	return out
}

func (r TableRow) check(curve bool) error {
	switch {
	case r.Title == "":
		return errors.New("no title")
	case r.Absent != "" && (r.Generator+r.Strategy != "" || r.N != 0 || r.Ns != nil || r.Most != 0):
		return errors.New("a row that is absent names no generator, strategy or n")
	case r.Absent != "":
		return nil
	case r.Most < 0:
		return fmt.Errorf("most is %d selections", r.Most)
	case r.Generator == "" || r.Strategy == "":
		return errors.New("generator and strategy must be named")
	case curve && (len(r.Ns) == 0 || r.N != 0 || !slices.IsSorted(r.Ns) || r.Ns[0] < 1):
		return fmt.Errorf("a curve wants ns in rising order and no n, got %v and %d", r.Ns, r.N)
	case !curve && (r.N < 1 || r.Ns != nil):
		return fmt.Errorf("a row wants n from 1 on and no ns, got %d and %v", r.N, r.Ns)
	}
	return nil
}

// Scale is how tables are measured at one size, in scale.yaml.
type Scale struct {
	Prompts     string            `yaml:"prompts"` // tiny or official
	N           int               `yaml:"n"`       // paths of a bank
	Jobs        int               `yaml:"jobs"`    // prompts at a time; 0 means 1
	Seed        uint64            `yaml:"seed"`
	Steps       int               `yaml:"steps"`
	Guidance    float64           `yaml:"guidance"`
	Temperature float64           `yaml:"temperature"`
	Models      map[string]string `yaml:"models"` // name -> folder; a name without one is a shipped model
	Train       []TrainStep       `yaml:"train"`
}

// TrainStep is one command of a training from nothing.
type TrainStep struct {
	Name string `yaml:"name"`
	Run  string `yaml:"run"` // imagecot ...
}

// ReadScale reads a scale.yaml.
func ReadScale(dir fs.FS, file string) (Scale, error) {
	var s Scale
	return s, decodeStrict(dir, file, &s)
}

// Recipe is how paths are decoded at this scale.
func (s Scale) Recipe() Recipe {
	r := Default()
	r.Strategy, r.N, r.Seed, r.Steps, r.Guidance, r.Temperature = "single", s.N, s.Seed, s.Steps, s.Guidance, s.Temperature
	return r
}

// decodeStrict reads one YAML document; unknown keys are errors.
func decodeStrict(dir fs.FS, file string, into any) error {
	text, err := fs.ReadFile(dir, file)
	if err != nil {
		return fmt.Errorf("experiment: recipe: %w", err)
	}
	return decodeYAML(file, text, into)
}

// decodeYAML reads one YAML document; unknown keys and further documents are errors. name is for errors.
func decodeYAML(name string, text []byte, into any) error {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("experiment: %w %s: %w", ErrRecipe, name, err)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("experiment: %w %s: more than one document", ErrRecipe, name)
	}
	return nil
}
