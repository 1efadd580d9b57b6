"""What a running system says of itself: the live table, the referee, plots and the report.

- `catch_up`: how far each stage is behind the events, whether it catches up, and when (from two
  looks at what it has reached)
- `discovery`: where the processes of a system answer, on this host and on others
- `follow`: following a running system from outside
- `governed`: what a governor says of itself, for the status page
- `inputs`: what is wrong with the inputs, as `everspun status` and the launcher's alarm say
  it
- `learning`: what learners could not use of what they read, as `everspun status` says it
- `plots`: the report's plots
- `quality`: the two losses, from the records of `evaluations`, never mixed
- `referee`: what `everspun status` calls wrong
- `report`: one HTML file that says how a run went
- `resharded`: how many shards there are, are wanted, and how long the last change stopped starts,
  for the status page (S6)
- `scraping`: reading what running roles report
- `table`: the live table
- `rate_file`: the usual rate of a stream as it is kept in the run's folder
- `usual_rate`: whether a stream has stopped, by its own usual rate at that hour of the week (pure)
"""
