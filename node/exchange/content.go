package exchange

import (
	"errors"
	"fmt"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// ErrContent is wrapped by every error about records and their content: what stands
// there is not what may leave, or be taken in. The texts never repeat it.
var ErrContent = errors.New("content not fit to be exchanged")

// Validator holds records to the schemas of their datasets; it compiles each once. The
// zero value is ready and safe for concurrent use.
type Validator struct{ schemas schemas }

// Check insists that each record is a well-formed JSON object, within the limits of an
// answer, that matches the dataset's schema.
func (v *Validator) Check(dataset names.DatasetID, schema string, records ...Record) error {
	err := checkRecords(records)
	if err == nil {
		err = v.schemas.check(dataset, schema, records)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrContent, err)
	}
	return nil
}

// FieldsOf gives the names of a record's fields, in order. It must be well formed.
func FieldsOf(r Record) (fields []names.FieldName, err error) {
	err = eachField(r, func(name string, _ Record) error {
		fields = append(fields, names.FieldName(name))
		return nil
	})
	return fields, err
}

// Permitted gives content: a JSON array of records, which were checked, with their
// permitted fields only.
func Permitted(permitted []names.FieldName, records ...Record) ([]byte, error) {
	return filter(records, permitted)
}

// CheckContent insists that content, which a peer sent, is a bounded array of
// well-formed records with permitted fields only, and gives their number.
func CheckContent(content []byte, permitted []names.FieldName) (int, error) {
	n, err := checkContent(content, permitted)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrContent, err)
	}
	return n, nil
}

// BlindingSize is how many random bytes hide content in its commitment.
const BlindingSize = blindingSize

// Tidy makes an entry's detail what a journal takes.
func Tidy(e *nodepb.Entry) { tidy(e) }
