"""Published figures that comparisons may set beside runs: five-seed means on the test split, from MMSA's own results page.

They were made with MMSA's BERT-base features and splits, and are no control of any run here.
"""

SOURCE = "MMSA's published five-seed means, test split, BERT base"

PUBLISHED: dict[str, dict[str, dict[str, float]]] = {
    "mosi": {
        "Self-MM (MMSA)": {
            "MAE": 0.708, "Corr": 0.796, "Has0_acc_2": 0.8344, "Non0_acc_2": 0.8546,
            "Has0_F1_score": 0.8336, "Non0_F1_score": 0.8543, "Mult_acc_5": 0.5347, "Mult_acc_7": 0.4667,
        }
    },
    "mosei": {
        "Self-MM (MMSA)": {
            "MAE": 0.531, "Corr": 0.765, "Has0_acc_2": 0.8376, "Non0_acc_2": 0.8515,
            "Has0_F1_score": 0.8382, "Non0_F1_score": 0.8490, "Mult_acc_5": 0.5553, "Mult_acc_7": 0.5387,
        }
    },
    "sims": {
        "Self-MM (MMSA, generated unimodal labels)": {
            "MAE": 0.425, "Corr": 0.595, "Mult_acc_2": 0.8004, "Mult_acc_3": 0.6547, "Mult_acc_5": 0.4153, "F1_score": 0.8044,
        },
        "MTFN (MMSA, human unimodal labels)": {
            "MAE": 0.395, "Corr": 0.666, "Mult_acc_2": 0.8109, "Mult_acc_3": 0.6880, "Mult_acc_5": 0.4031, "F1_score": 0.8101,
        },
        "MLF_DNN (MMSA, human unimodal labels)": {
            "MAE": 0.396, "Corr": 0.665, "Mult_acc_2": 0.8044, "Mult_acc_3": 0.6937, "Mult_acc_5": 0.4022, "F1_score": 0.8028,
        },
    },
}  # fmt: skip
