package notify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/crossroads-mesh/crossroads/node/exchange/outbox"
	"github.com/crossroads-mesh/crossroads/node/nodepb"
)

// Rows are found by numbers that count up, so that what is read after a restart stands
// in the order in which it was accepted.

func sequenceID(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

func sequenceOf(id string) (uint64, error) {
	if len(id) < 8 {
		return 0, fmt.Errorf("row of %d bytes: %w", len(id), outbox.ErrDamaged)
	}
	return binary.BigEndian.Uint64([]byte(id[len(id)-8:])), nil
}

func publicationKey(n uint64) outbox.Key {
	return outbox.Key{Table: tabPublications, ID: sequenceID(n)}
}

func audienceKey(n uint64) outbox.Key { return outbox.Key{Table: tabAudiences, ID: sequenceID(n)} }

// deliveryKey joins with a zero byte, which no address holds.
func deliveryKey(address string, n uint64) outbox.Key {
	return outbox.Key{Table: tabDeliveries, ID: address + "\x00" + sequenceID(n)}
}

func changeOf(k outbox.Key, m proto.Message, until time.Time) (outbox.Change, error) {
	raw, err := proto.Marshal(m)
	return outbox.Change{Key: k, Value: raw, Until: until}, err
}

// recover reads what waits: publications nobody was asked about yet, and deliveries.
func (p *Publisher) recover() error {
	publications, err := p.cfg.Queue.IDs(tabPublications, "")
	if err != nil {
		return err
	}
	audiences, err := p.cfg.Queue.IDs(tabAudiences, "")
	if err != nil {
		return err
	}
	decided := make(map[string]bool, len(audiences))
	for _, id := range audiences {
		decided[id] = true
	}
	for _, id := range publications {
		n, err := sequenceOf(id)
		if err != nil {
			return err
		}
		p.next = max(p.next, n)
		if !decided[id] {
			p.pending = append(p.pending, n)
		}
	}
	deliveries, err := p.cfg.Queue.IDs(tabDeliveries, "")
	if err != nil {
		return err
	}
	for _, id := range deliveries {
		address, _, _ := strings.Cut(id, "\x00")
		n, err := sequenceOf(id)
		if err != nil {
			return err
		}
		p.next = max(p.next, n)
		kept := new(nodepb.KeptDelivery)
		ok, err := p.load(deliveryKey(address, n), kept)
		if err != nil {
			return err
		}
		if ok {
			p.courier(address).add(&delivery{sequence: n, kept: kept})
		}
	}
	return nil
}

// errEnded means that a publication is no longer kept.
var errEnded = errors.New("publication no longer kept")

// publication reads one.
func (p *Publisher) publication(n uint64) (*nodepb.KeptPublication, error) {
	k := new(nodepb.KeptPublication)
	ok, err := p.load(publicationKey(n), k)
	if err == nil && !ok {
		err = errEnded
	}
	return k, err
}

// courier gives the one for an address, and has Run start it.
func (p *Publisher) courier(address string) *courier {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.couriers[address]
	if c == nil {
		c = newCourier(p, address)
		p.couriers[address] = c
		select {
		case p.started <- c:
		default: // more than anybody has; Run looks through all of them
		}
	}
	return c
}
