package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/crossroads-mesh/crossroads/node/api"
)

func TestLoadSector(t *testing.T) {
	var b strings.Builder
	b.WriteString(strings.Join(sectorHeading, ",") + "\n")
	for i := range 2500 { // three rows a subject
		fmt.Fprintf(&b, "add,ssin,%011d,fund-a,insured,2026-01-01,\n", i/3)
	}
	var lots [][]api.SectorChange
	n, err := loadSector(strings.NewReader(b.String()), 2, func(lot []api.SectorChange) error {
		lots = append(lots, slices.Clone(lot))
		return nil
	}, func(int) {})
	if err != nil || n != 2500 || len(lots) != 3 {
		t.Fatalf("%d rows in %d lots, %v", n, len(lots), err)
	}
	for i, lot := range lots {
		if len(lot) > sectorLot || i > 0 && lots[i-1][len(lots[i-1])-1].Subject == lot[0].Subject {
			t.Errorf("lot %d of %d rows parts a subject", i, len(lot))
		}
	}
	// A lot that is refused: what was before stands, and the line says where to go on.
	refused := errors.New("refused")
	n, err = loadSector(strings.NewReader(b.String()), 2, func(lot []api.SectorChange) error {
		if lot[0].Subject.Number != "00000000000" {
			return refused
		}
		return nil
	}, func(int) {})
	if n != 999 || !errors.Is(err, refused) || !strings.Contains(err.Error(), "line 1001 ") {
		t.Errorf("%d rows, %v", n, err)
	}
	n, err = loadSector(strings.NewReader(b.String()), 1001, func(lot []api.SectorChange) error { return nil }, func(int) {})
	if n != 1501 || err != nil {
		t.Errorf("from there: %d rows, %v", n, err)
	}
	for name, bad := range map[string]string{
		"no heading": "add,ssin,1,a,b,,\n",
		"change":     strings.Join(sectorHeading, ",") + "\nmove,ssin,1,a,b,,\n",
		"date":       strings.Join(sectorHeading, ",") + "\nadd,ssin,1,a,b,tomorrow,\n",
		"columns":    strings.Join(sectorHeading, ",") + "\nadd,ssin,1\n",
	} {
		if n, err := loadSector(strings.NewReader(bad), 2, func([]api.SectorChange) error { return nil }, func(int) {}); err == nil || n > 0 {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
}
