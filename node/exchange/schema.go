package exchange

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// errSchema means that a record does not match its dataset's schema, or that the
// schema itself cannot be used.
var errSchema = errors.New("record against the schema")

// schemas compiles the datasets' JSON Schemas, one current version for each
// dataset. It is safe for concurrent use.
type schemas struct {
	mu       sync.Mutex
	compiled map[names.DatasetID]compiledSchema // never more than the sources configured
}

type compiledSchema struct {
	text   string
	schema *jsonschema.Schema
	plain  *plain // nil: it has no such form
}

// noLoader refuses every reference to elsewhere: a schema comes from the registry
// whole, and a node fetches nothing on its word.
type noLoader struct{}

var errRemote = errors.New("references to other documents are not followed")

func (noLoader) Load(string) (any, error) { return nil, errRemote }

// check validates every record. Its error never repeats what a record holds.
func (s *schemas) check(dataset names.DatasetID, schema string, records []Record) error {
	compiled, err := s.get(dataset, schema)
	if err != nil {
		return err
	}
	for i, r := range records {
		if compiled.plain != nil && compiled.plain.accepts(r) {
			continue
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(r))
		if err != nil {
			return fmt.Errorf("%w: record %d is not JSON", errSchema, i)
		}
		if err := compiled.schema.Validate(doc); err != nil {
			return fmt.Errorf("%w: record %d: %s", errSchema, i, place(err))
		}
	}
	return nil
}

func (s *schemas) get(dataset names.DatasetID, schema string) (c compiledSchema, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.compiled[dataset]; ok && c.text == schema {
		return c, nil
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	if err != nil {
		return c, fmt.Errorf("%w: the schema of %s is not JSON", errSchema, dataset)
	}
	const url = "crossroads:dataset"
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.UseLoader(noLoader{})
	if err := compiler.AddResource(url, doc); err != nil {
		return c, fmt.Errorf("%w: the schema of %s: %v", errSchema, dataset, err)
	}
	compiled, err := compiler.Compile(url)
	if err != nil {
		return c, fmt.Errorf("%w: the schema of %s does not compile: %v", errSchema, dataset, err)
	}
	if s.compiled == nil {
		s.compiled = make(map[names.DatasetID]compiledSchema)
	}
	c = compiledSchema{schema, compiled, plainOf(compiled)}
	s.compiled[dataset] = c
	return c, nil
}

// maxPlace bounds what is told of a path within a schema, in bytes.
const maxPlace = 100

// place says where in the schema a record failed, and nothing of the record.
func place(err error) string {
	var v *jsonschema.ValidationError
	if !errors.As(err, &v) {
		return "invalid"
	}
	for len(v.Causes) > 0 {
		v = v.Causes[0]
	}
	path := strings.Join(append([]string{"#"}, v.ErrorKind.KeywordPath()...), "/")
	if len(path) > maxPlace {
		path = strings.ToValidUTF8(path[:maxPlace], "") + "..."
	}
	return "fails " + path
}
