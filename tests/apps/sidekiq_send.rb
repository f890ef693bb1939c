# Sends the tasks of a plan (JSON on standard input: a list of {task, at, seconds, mib, delay}; `at` in seconds from now).
require_relative "tasks"

start = Time.now.to_f
JSON.parse($stdin.read).sort_by { |item| item["at"] }.each do |item|
  delay = start + item["at"] - Time.now.to_f
  sleep(delay) if delay.positive?
  Ledger.put("sent", item["task"])
  # `delay`: in seconds until it is due.
  Work.perform_in(item["delay"] || 0, item["task"], item["seconds"], item["mib"] || 0)
end
