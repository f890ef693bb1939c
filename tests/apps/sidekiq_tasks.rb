# A plain Sidekiq application. Every start and end of a task is written to the ledger (`Ledger`), and so is every sending (`send.rb`).
require "json"
require "redis"
require "securerandom"
require "sidekiq"
require "socket"

module Ledger
  REDIS = Redis.new(url: ENV.fetch("LEDGER_URL"))

  def self.put(event, task, run = "")
    line = { event: event, task: task, run: run, host: Socket.gethostname, at: Time.now.to_f }
    REDIS.rpush(ENV.fetch("LEDGER_KEY"), JSON.generate(line))
  end
end

class Work
  include Sidekiq::Worker
  sidekiq_options queue: ENV.fetch("QUEUE")

  def perform(task, seconds, mib)
    run = SecureRandom.hex
    Ledger.put("start", task, run)
    block = "x" * (mib << 20)
    sleep(seconds)
    Ledger.put("done", task, run)
    block.bytesize
  end
end
