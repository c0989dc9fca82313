package testnet

import (
	"context"
	"fmt"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// sectorRows is how many rows of a sector's directory are loaded at once.
const sectorRows = 1000

// sector is the part of a node in its sector, if there are funds behind a managing body.
func (l *layout) sector(s *site) *config.Sector {
	if len(l.world.Funds()) == 0 || s.Sector == "" {
		return nil
	}
	m, _ := l.world.ManagingBody(s.Sector)
	if s.Cooperating() {
		return &config.Sector{ManagingBody: m.ID}
	}
	c := new(config.Sector)
	for _, d := range l.world.Supplies(s.Institution) {
		c.Datasets = append(c.Datasets, d.ID)
	}
	return c
}

// enrolSector fills the managing body's own directory, as its people would: with the
// funds, and with who is with whom. Nobody else is told.
func (n *Network) enrolSector(ctx context.Context) error {
	funds := n.World().Funds()
	if len(funds) == 0 {
		return nil
	}
	m, _ := n.World().ManagingBody(funds[0].Sector)
	if err := n.WaitReady(ctx); err != nil { // its node must know that the funds are of its sector
		return err
	}
	client := n.Client(m.ID)
	for _, f := range funds {
		always := names.Period{From: names.Always, Until: names.Forever}
		if err := client.SetSectorMember(ctx, api.SectorMember{Institution: f.ID, Period: always}); err != nil {
			return fmt.Errorf("admit %s to the sector: %w", f.ID, err)
		}
	}
	var lot []api.SectorChange
	send := func() error {
		if len(lot) == 0 {
			return nil
		}
		err := client.ChangeSector(ctx, lot)
		lot = lot[:0]
		return err
	}
	for p := range n.World().Persons() {
		for _, r := range n.World().SectorReferences(p) {
			lot = append(lot, sectorChange(r))
		}
		if len(lot) > sectorRows-50 { // what one person has stays together
			if err := send(); err != nil {
				return fmt.Errorf("load the sector directory: %w", err)
			}
		}
	}
	if err := send(); err != nil {
		return fmt.Errorf("load the sector directory: %w", err)
	}
	for p := range n.World().Persons() {
		if f := p.Former; f != nil {
			if err := client.ReplaceInSector(ctx, apiSubject(f.SSIN), apiSubject(p.SSIN)); err != nil {
				return fmt.Errorf("load the sector directory: %w", err)
			}
		}
	}
	return nil
}

func sectorChange(r data.SectorReference) api.SectorChange {
	return api.SectorChange{SectorReference: api.SectorReference{
		Subject: apiSubject(r.Subject), Institution: r.Fund, Quality: r.Quality, Period: r.Period}}
}

func apiSubject(id subject.ID) api.Subject {
	return api.Subject{Scheme: string(id.Scheme()), Number: id.Number()}
}
