package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// MaxSize is the largest configuration file that is read, in bytes.
const MaxSize = 256 << 10

// maxDepth is deeper than any key of Config; it bounds what the parser is given.
const maxDepth = 32

// Load reads, resolves and validates the file at path. The error is Problems when
// the file can be read but not used.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w (`crossroads config example` prints one to start from)", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	c, problems := parse(path, b)
	if c == nil {
		return nil, problems
	}
	c.resolve(filepath.Dir(abs))
	if problems = append(problems, c.problems()...); len(problems) > 0 {
		return nil, problems.sorted()
	}
	return c, nil
}

// parse reads b. What it returns is nil when nothing can be said beyond the problems.
func parse(file string, b []byte) (*Config, Problems) {
	src := source{file: file, lines: map[string]position{}}
	refuse := func(p position, what, mend string) (*Config, Problems) {
		return nil, Problems{{File: file, Line: p.line, Column: p.column, What: what, Mend: mend}}
	}
	if len(b) > MaxSize {
		return refuse(position{}, fmt.Sprintf("larger than %d bytes", MaxSize), "this is no configuration file of a node")
	}
	if line := tooDeep(b); line > 0 {
		return refuse(position{line, 1}, "nested too deep", "no setting is nested deeper than a few levels")
	}
	tree, err := parser.ParseBytes(b, 0)
	if err != nil {
		p, what := explain(err)
		return refuse(p, what, "mend the YAML here: indent with spaces, quote text that has a colon")
	}
	if len(tree.Docs) != 1 || tree.Docs[0].Body == nil {
		return refuse(position{}, "want exactly one YAML document", "`crossroads config example` prints one to start from")
	}
	w := walker{source: src}
	w.walk(tree.Docs[0].Body, reflect.TypeFor[Config](), "")
	if w.fatal {
		return nil, w.found
	}
	c := Default()
	if err := yaml.NodeToValue(tree.Docs[0].Body, c); err != nil {
		p, what := explain(err)
		_, more := refuse(p, what, "see `crossroads config example` for what belongs here")
		return nil, append(w.found, more...).sorted()
	}
	c.source = src
	return c, w.found
}

// tooDeep gives the first line whose nesting no configuration has, or 0. The parser
// recurses, so depth is bounded before it sees the bytes.
func tooDeep(b []byte) int {
	for i, line := range bytes.Split(b, []byte("\n")) {
		indent := len(line) - len(bytes.TrimLeft(line, " -?"))
		brackets := bytes.Count(line, []byte("[")) + bytes.Count(line, []byte("{"))
		if brackets > maxDepth || indent > 8*maxDepth {
			return i + 1
		}
	}
	return 0
}

// explain takes line and message out of the YAML library's error, without the
// excerpt of the source that its own text carries.
func explain(err error) (position, string) {
	var e yaml.Error
	if !errors.As(err, &e) {
		return position{}, err.Error()
	}
	p := position{}
	if t := e.GetToken(); t != nil && t.Position != nil {
		p = position{t.Position.Line, t.Position.Column}
	}
	return p, e.GetMessage()
}

// walker checks every key against the struct that it will be decoded into, and
// remembers where it stands.
type walker struct {
	source source
	found  Problems
	fatal  bool // the tree cannot be decoded safely
	depth  int
}

func (w *walker) problem(n ast.Node, key, what, mend string) {
	p := positionOf(n)
	w.found = append(w.found, Problem{File: w.source.file, Line: p.line, Column: p.column, Key: key, What: what, Mend: mend})
}

func (w *walker) walk(n ast.Node, t reflect.Type, path string) {
	if w.depth++; w.depth > maxDepth {
		w.fatal = true
		w.problem(n, path, "nested too deep", "no setting is nested deeper than a few levels")
		return
	}
	defer func() { w.depth-- }()
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch n := n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.MergeKeyNode:
		w.fatal = true
		w.problem(n, path, "anchors, aliases and tags are not used here", "write the value out")
	case *ast.NullNode: // the same as leaving the key out
	case *ast.MappingNode:
		if !w.wants(n, t, path, t.Kind() == reflect.Struct) {
			return
		}
		for _, v := range n.Values {
			w.pair(v, t, path)
		}
	case *ast.SequenceNode:
		if !w.wants(n, t, path, t.Kind() == reflect.Slice) {
			return
		}
		for i, v := range n.Values {
			at := fmt.Sprintf("%s[%d]", path, i)
			w.source.lines[at] = positionOf(v)
			w.walk(v, t.Elem(), at)
			n.Values[i] = asText(v, t.Elem())
		}
	default:
		w.wants(n, t, path, fits(n, t))
	}
}

// wants tells of a value of the wrong type; the tree is then not decoded.
func (w *walker) wants(n ast.Node, t reflect.Type, path string, ok bool) bool {
	if !ok {
		w.fatal = true
		w.problem(n, path, "want "+plainType(t), "see `crossroads config example`")
	}
	return ok
}

func (w *walker) pair(v *ast.MappingValueNode, t reflect.Type, path string) {
	if _, merge := v.Key.(*ast.MergeKeyNode); merge {
		w.walk(v.Key, t, path)
		return
	}
	name := strings.Trim(v.Key.String(), `"'`)
	known := keysOf(t)
	ft, ok := known[name]
	if !ok {
		w.problem(v.Key, join(path, clip(name)), "unknown key", didYouMean(name, known))
		return
	}
	w.source.lines[join(path, name)] = positionOf(v.Key)
	w.walk(v.Value, ft, join(path, name))
	v.Value = asText(v.Value, ft)
}

// fits reports whether a scalar can be decoded into t.
func fits(n ast.Node, t reflect.Type) bool {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		s, ok := n.(*ast.StringNode)
		if !ok {
			return false
		}
		_, err := time.ParseDuration(s.Value)
		return err == nil
	case t.Kind() == reflect.Bool:
		return n.Type() == ast.BoolType
	case t.Kind() == reflect.Float64:
		return n.Type() == ast.IntegerType || n.Type() == ast.FloatType
	case t.Kind() == reflect.Int, t.Kind() == reflect.Int64, t.Kind() == reflect.Uint32:
		return n.Type() == ast.IntegerType
	default:
		return t.Kind() == reflect.String
	}
}

// asText keeps what was written where text is wanted: to YAML a hash that happens to
// be all digits, or digits around one e, is a number, and would be changed by it.
func asText(n ast.Node, t reflect.Type) ast.Node {
	if t.Kind() != reflect.String {
		return n
	}
	switch n.Type() {
	case ast.IntegerType, ast.FloatType, ast.BoolType, ast.InfinityType, ast.NanType:
		return ast.String(n.GetToken())
	}
	return n
}

// plainType says a type as an operator would.
func plainType(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "a duration, as 10s or 1h30m"
	case t.Kind() == reflect.Struct:
		return "a group of keys"
	case t.Kind() == reflect.Slice:
		return "a list"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.String:
		return "text"
	case t.Kind() == reflect.Float64:
		return "a number"
	default:
		return "a whole number"
	}
}

// keysOf gives the YAML keys of a struct.
func keysOf(t reflect.Type) map[string]reflect.Type {
	keys := make(map[string]reflect.Type, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); f.IsExported() && name != "" {
			keys[name] = f.Type
		}
	}
	return keys
}

func positionOf(n ast.Node) position {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return position{t.Position.Line, t.Position.Column}
	}
	return position{}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// resolve makes relative paths relative to dir.
func (c *Config) resolve(dir string) {
	paths := []*string{
		&c.Genesis.File, &c.Data.Dir, &c.Data.KeyFile, &c.Identity.Dir, &c.Signing.KeyFile,
		&c.Gossip.KeyFile, &c.API.TLSCert, &c.API.TLSKey,
	}
	for _, s := range c.Sources {
		if s.REST != nil {
			paths = append(paths, &s.REST.TokenFile)
		}
		if s.SQL != nil {
			paths = append(paths, &s.SQL.DSNFile)
		}
	}
	for i := range c.Inbox.Push {
		paths = append(paths, &c.Inbox.Push[i].HeadersFile, &c.Inbox.Push[i].CredentialsFile, &c.Inbox.Push[i].CAFile)
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

// YAML gives the configuration as a file that Load reads back.
func (c *Config) YAML() ([]byte, error) {
	b, err := yaml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return b, nil
}
