#include "device_flag.h"

#include <sstream>

namespace rosepo {
namespace {

struct Wording {
    Fault fault;
    const char* op;
    const char* argument;
    const char* wanted;
};

constexpr const char* kLoss = "preference_loss";
constexpr const char* kHead = "sequence_logprob";
constexpr const char* kFinite = "a finite log-probability";
constexpr const char* kOdds = "a finite log-probability below 0, as its odds are compared";

constexpr Wording kWordings[] = {
    {Fault::chosen, kLoss, "chosen", kFinite},
    {Fault::rejected, kLoss, "rejected", kFinite},
    {Fault::reference_chosen, kLoss, "reference_chosen", kFinite},
    {Fault::reference_rejected, kLoss, "reference_rejected", kFinite},
    {Fault::chosen_odds, kLoss, "chosen", kOdds},
    {Fault::rejected_odds, kLoss, "rejected", kOdds},
    {Fault::chosen_tokens, kLoss, "chosen_tokens", "a length of at least 1"},
    {Fault::rejected_tokens, kLoss, "rejected_tokens", "a length of at least 1"},
    {Fault::epsilon, kLoss, "epsilon", "0 to 1"},
    {Fault::epsilon_robust, kLoss, "epsilon", "0 to 0.45 for loss 'robust'"},
    {Fault::beta, kLoss, "beta", "a finite number above 0"},
    {Fault::weight, kLoss, "weight", "a finite number, 0 or more"},
    {Fault::kl, kLoss, "kl", "a finite number, 0 or more"},
    {Fault::overflow, kLoss, "the result",
     "a finite loss and gradient: look at the log-probs, beta and weight"},
    {Fault::target, kHead, "targets", "0 to the vocabulary's last"},
    {Fault::row_of_target, kHead, "row_of_target", "0 to the last row of hidden"},
    {Fault::sequence_of_target, kHead, "sequence_of_target", "0 to num_sequences - 1"},
    {Fault::logprob, kHead, "a log-prob of hidden",
     "finite hidden, weight and bias whose product does not overflow"},
};

}  // namespace

std::string sentence(const DeviceFlag& found) {
    for (const Wording& known : kWordings) {
        if (static_cast<int>(known.fault) != found.fault) continue;
        std::ostringstream text;
        text << known.op << ": " << known.argument;
        if (found.row >= 0) {
            text << "[" << found.row;
            if (found.column >= 0) text << ", " << found.column;
            text << "]";
        }
        text << " is " << found.value << ": want " << known.wanted;
        return text.str();
    }
    return "rosepo: unknown fault " + std::to_string(found.fault);
}

}  // namespace rosepo
