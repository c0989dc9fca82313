package batch

import (
	"encoding/json"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/certs/envelope"
	"github.com/crossroads-mesh/crossroads/node/batch/content"
	"github.com/crossroads-mesh/crossroads/node/exchange"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/packed"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// maxRemembered bounds the records whose cut is remembered.
const maxRemembered = 4096

// cutting makes items of records, for one group. Many records of a dataset are the very same
// bytes, so what was made of some is remembered. It is for one goroutine.
type cutting struct {
	records *exchange.Validator
	dataset names.DatasetID
	schema  string
	fields  []names.FieldName
	yesNo   bool
	sector  bool // records come from within the sector: checked, and cut, by whoever has them

	made map[string]content.Item
}

func (c *cutting) item(records []exchange.Record) content.Item {
	switch len(records) {
	case 0:
		return content.Item{Code: content.None}
	case 1:
		if i, ok := c.made[string(records[0])]; ok {
			return i
		}
	}
	i := c.make(records)
	if len(records) == 1 {
		if c.made == nil || len(c.made) >= maxRemembered {
			c.made = make(map[string]content.Item)
		}
		c.made[string(records[0])] = i
	}
	return i
}

func (c *cutting) make(records []exchange.Record) content.Item {
	var array []byte
	failed := content.Item{Code: content.Failed}
	var err error
	if c.sector {
		failed.Code = content.Unresolved
	} else {
		err = c.records.Check(c.dataset, c.schema, records...)
	}
	if err == nil {
		array, err = exchange.Permitted(c.fields, records...)
	}
	if err == nil && c.sector {
		_, err = exchange.CheckContent(array, c.fields)
	}
	if err != nil {
		return failed
	}
	if !c.yesNo {
		return content.Item{Code: content.Records, Records: array}
	}
	yes, err := anyTrue(array)
	switch {
	case err != nil:
		return failed
	case yes:
		return content.Item{Code: content.Yes}
	}
	return content.Item{Code: content.No}
}

// anyTrue reports whether one of the records says true in its one field.
func anyTrue(array []byte) (bool, error) {
	var records []map[string]*bool
	if err := json.Unmarshal(array, &records); err != nil {
		return false, err
	}
	for _, r := range records {
		for _, v := range r {
			if v != nil && *v {
				return true, nil
			}
		}
	}
	return false, nil
}

// fate is what an item means in the words of the network.
func fate(i content.Item) (nodepb.Status, registrypb.Reason) {
	switch i.Code {
	case content.None:
		return nodepb.Status_NO_DATA_FOUND, 0
	case content.Revoked:
		return nodepb.Status_NO_RESULT, registrypb.Reason_REVOKED
	case content.Failed:
		return nodepb.Status_NO_RESULT, registrypb.Reason_SUPPLIER_ERROR
	case content.Unresolved:
		return nodepb.Status_NO_RESULT, registrypb.Reason_SECTOR_FAILED
	}
	return nodepb.Status_DATA_FOUND, 0
}

// fared sorts the subjects of a clearance by how they fared.
func fared(c *registrypb.ChunkClearance, items []content.Item) (groups []*nodepb.LotSubjects) {
	place := 0
	for _, g := range c.Groups {
		var by [content.Last + 1][]string // by how it fared: the first code that means it
		for _, n := range packed.All(g.Subjects) {
			code := items[place].Code
			if code == content.Yes || code == content.No {
				code = content.Records
			}
			by[code] = append(by[code], n)
			place++
		}
		for code, numbers := range by {
			if len(numbers) == 0 {
				continue
			}
			k := groupOf(g)
			k.Subjects = packed.Of(subject.Scheme(g.Subjects.Scheme), numbers)
			k.Status, k.Reason = fate(content.Item{Code: content.Code(code)})
			groups = append(groups, k)
		}
	}
	return groups
}

// statusOver sums the items of a chunk up.
func statusOver(items []content.Item) nodepb.Status {
	good, bad, found := 0, 0, false
	for _, i := range items {
		s, _ := fate(i)
		switch s {
		case nodepb.Status_NO_RESULT:
			bad++
		case nodepb.Status_DATA_FOUND:
			good, found = good+1, true
		default:
			good++
		}
	}
	switch {
	case good == 0:
		return nodepb.Status_NO_RESULT
	case bad > 0:
		return nodepb.Status_INCOMPLETE_DATA
	case found:
		return nodepb.Status_DATA_FOUND
	}
	return nodepb.Status_NO_DATA_FOUND
}

// maxAnswer bounds the signed answer, in bytes.
const maxAnswer = 8 << 10

// rootOf gives the root that a signed answer names.
func rootOf(answer []byte) []byte {
	o, err := envelope.Open(envelope.LotAnswer, answer)
	if err != nil {
		return nil
	}
	a := new(nodepb.ChunkAnswer)
	if proto.Unmarshal(o.Payload, a) != nil {
		return nil
	}
	return a.Root
}
