package traffic

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/crossroads-mesh/crossroads/node/api"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/testnet"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// lotPoll is how often is looked whether a lot has ended.
const lotPoll = 50 * time.Millisecond

// lots hands in files of subjects, one after the other, until so many have been asked
// about; numbers come again when all have been.
func lots(ctx context.Context, n *testnet.Network, q data.Consultation, numbers []string, subjects, inOne int) (tickets []Ticket, handedIn int, err error) {
	c := n.Client(q.Requester)
	c.AuthLevel = fmt.Sprint(q.AuthLevel)
	some, run := newSample(Lots), rand.Text()
	inOne = min(inOne, len(numbers)) // nobody twice in one
	for from := 0; subjects > 0; handedIn++ {
		size := min(subjects, inOne)
		file := new(strings.Builder)
		file.WriteString("number\n")
		for i := range size {
			fmt.Fprintln(file, numbers[(from+i)%len(numbers)])
		}
		from, subjects = from+size, subjects-size
		var lot api.Lot
		err := insist(ctx, func() (err error) {
			lot, err = c.SubmitLot(ctx, api.LotRequest{
				ClientTicket: names.ClientTicket(fmt.Sprintf("%.8s-%d", run, handedIn)), Purpose: q.Purpose, Dataset: q.Dataset, Period: q.Period,
			}, strings.NewReader(file.String()))
			return err
		})
		if err != nil {
			return some.all, handedIn, fmt.Errorf("lot %d: %w", handedIn+1, err)
		}
		for lot.Ended == nil {
			select {
			case <-time.After(lotPoll):
			case <-ctx.Done():
				return some.all, handedIn, ctx.Err()
			}
			if err := insist(ctx, func() (err error) { lot, err = c.Lot(ctx, lot.Voucher); return err }); err != nil {
				return some.all, handedIn, err
			}
		}
		if lot.Tally["DATA_FOUND"] != uint64(size) {
			return some.all, handedIn, fmt.Errorf("a lot about %d who all have what is asked for came out as %v", size, lot.Tally)
		}
		some.add(q.Requester, lot.Voucher)
		if err := insist(ctx, func() error { return c.AcknowledgeLot(ctx, lot.Voucher) }); err != nil {
			return some.all, handedIn, err
		}
	}
	return some.all, handedIn, nil
}
