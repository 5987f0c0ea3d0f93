package ec2

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// Doomed tells which instances of the account in the region EC2 has announced to take back, by instance ID, and why: spot
// instances two minutes ahead (the notice that the instance itself finds in its metadata), others whose hardware is to be
// retired or that are to be stopped, days ahead. It makes a call for each of the two, whatever the number of instances, and is
// made for farm.Config.Doomed. It needs the permissions ec2:DescribeSpotInstanceRequests and ec2:DescribeInstanceStatus.
//
// Source: "Spot request status codes" and "Scheduled events for your instances" in the Amazon EC2 user guide.
func (c *Cloud) Doomed(ctx context.Context) (map[string]string, error) {
	const op = "Doomed"
	if err := ended(ctx, op, ""); err != nil {
		return nil, err
	}
	doomed := map[string]string{}
	requests := ec2.NewDescribeSpotInstanceRequestsPaginator(c.ec2, &ec2.DescribeSpotInstanceRequestsInput{
		Filters: []types.Filter{filter("status-code", "marked-for-termination", "marked-for-stop")}, MaxResults: aws.Int32(page)})
	for requests.HasMorePages() {
		p, err := requests.NextPage(ctx)
		if err != nil {
			return nil, c.fail(ctx, op, "", reads, err)
		}
		for _, r := range p.SpotInstanceRequests {
			if id := aws.ToString(r.InstanceId); id != "" && r.Status != nil {
				doomed[id] = "spot notice: " + aws.ToString(r.Status.Code)
			}
		}
	}
	codes := []string{string(types.EventCodeInstanceRetirement), string(types.EventCodeInstanceStop)}
	statuses := ec2.NewDescribeInstanceStatusPaginator(c.ec2, &ec2.DescribeInstanceStatusInput{
		Filters: []types.Filter{filter("event.code", codes...)}, MaxResults: aws.Int32(page)})
	for statuses.HasMorePages() {
		p, err := statuses.NextPage(ctx)
		if err != nil {
			return nil, c.fail(ctx, op, "", reads, err)
		}
		for _, s := range p.InstanceStatuses {
			for _, e := range s.Events {
				if lapsed(e) || e.Code != types.EventCodeInstanceRetirement && e.Code != types.EventCodeInstanceStop {
					continue
				}
				why := string(e.Code)
				if e.NotBefore != nil {
					why += " not before " + e.NotBefore.UTC().Format("2006-01-02 15:04 MST")
				}
				doomed[aws.ToString(s.InstanceId)] = why
			}
		}
	}
	return doomed, nil
}

// lapsed reports whether an event is over: EC2 shows it for a week more, with a mark at the beginning of its description.
func lapsed(e types.InstanceStatusEvent) bool {
	text := aws.ToString(e.Description)
	return len(text) > 0 && text[0] == '['
}
